"""`driftgate curate`, `driftgate feedback send` and a curator's HTTP, as somebody uses them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from driftgate.cli import app
from driftgate.errors import DriftgateError, Exit
from schemas import cloudevents
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackKind
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.integration.test_metrics_http import get, port_of
from tests.support.curating import enriched, heard, letters, serve
from tests.support.processes import Launch, environment, eventually
from tests.support.samples import sample
from tests.support.topics import put

R = CaseReason
DAY_MS = 86_400_000
BEGIN_MS = 1_700_000_000_000
READ_DATASET = """
import json, sys
import mlflow
from mlflow.genai.datasets import get_dataset
mlflow.set_tracking_uri(sys.argv[1])
frame = get_dataset(name=sys.argv[2]).to_df()
print(json.dumps(frame[["inputs", "outputs", "expectations", "tags"]].to_dict("records")))
"""


def case(number: int, *reasons: CaseReason, **changes: Any) -> CuratedCase:
    values = {
        "id": f"prompts/0/{number}",
        "service": "shop",
        "reasons": list(reasons or [R.FALLBACK]),
        "prompt": f"Number {number} of [several] prompts",
        "domain": "general",
        "feedback": None,
        "curated_ms": BEGIN_MS + number * DAY_MS,
    }
    return msgspec.structs.replace(sample(CuratedCase), **(values | changes))


CASES = [
    case(1, R.LOW_RELEVANCE),
    case(2, R.FALLBACK, service="blog"),
    case(3, R.LOW_RELEVANCE),
    case(
        3,
        R.LOW_RELEVANCE,
        R.NEGATIVE_FEEDBACK,
        feedback=CaseFeedback(kind=FeedbackKind.USER_RATING, value=0.0, comment="No!"),
    ),
]


async def fill(kafka: KafkaSettings) -> None:
    for one in CASES:
        headers = cloudevents.headers(
            one, id=one.id, source="/driftgate/curator/c", subject=one.service, time_ms=BEGIN_MS
        )
        await put(kafka, Topic.CURATED, one.id.encode(), cloudevents.encode_json(one), headers)


@pytest.fixture
def filled(kafka: KafkaSettings) -> KafkaSettings:
    """Three events are cases, of two services; the last one was extended."""
    asyncio.run(fill(kafka))
    return kafka


def call(kafka: KafkaSettings, *arguments: str, code: int = 0) -> Result:
    """Run a command in this process, which spares a start of seconds."""
    variables = {
        "COLUMNS": "200",
        "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
        "DRIFTGATE_PROMPT_PARTITIONS": str(kafka.prompt_partitions),
        "DRIFTGATE_SERVICE_PARTITIONS": str(kafka.service_partitions),
    }
    done = CliRunner().invoke(app, arguments, env=variables)
    error = done.exception
    found = error.code if isinstance(error, DriftgateError) else done.exit_code
    assert found == code, f"{arguments}: {done.output} {error!r}"
    return done


def run(
    kafka: KafkaSettings, home: Path, *arguments: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "driftgate", *arguments],
        env=environment(kafka, home, **variables),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_list_shows_the_newest_cases(filled: KafkaSettings) -> None:
    """One line an event with all of its reasons, newest first; filters and a limit apply."""
    text = call(filled, "curate", "list").stdout
    assert "3 of 3 cases" in text
    assert "Number 3 of [several] prompts" in text
    assert text.index("prompts/0/3") < text.index("prompts/0/2") < text.index("prompts/0/1")

    def listed(*options: str) -> list[str]:
        return ids(call(filled, "curate", "list", "--json", *options).stdout)

    assert listed() == ["prompts/0/3", "prompts/0/2", "prompts/0/1"]
    assert listed("--limit", "1") == ["prompts/0/3"]
    assert listed("--service", "blog") == ["prompts/0/2"]
    assert listed("--reason", "negative_feedback") == ["prompts/0/3"]
    assert listed("--reason", "fallback", "--reason", "low_relevance", "--service", "shop") == [
        "prompts/0/3",
        "prompts/0/1",
    ]
    # The second case was made on 2023-11-16 at 22:13:20 UTC.
    assert listed("--since", "2023-11-16T22:13:21Z") == ["prompts/0/3"]
    assert listed("--since", "1d") == []
    wrong = call(filled, "curate", "list", "--since", "soon", code=Exit.USAGE)
    assert "neither so long ago" in wrong.stderr


def test_export_writes_json_lines(filled: KafkaSettings, tmp_path: Path) -> None:
    """To a file whole or not at all, to stdout without anything else, junk passed over aloud."""
    asyncio.run(put(filled, Topic.CURATED, b"junk", b"junk"))
    out = tmp_path / "out.jsonl"
    done = run(filled, tmp_path, "curate", "export", "out.jsonl", "--json")
    assert json.loads(done.stdout) == {"cases": 3, "unreadable": 1, "file": "out.jsonl"}
    assert "1 records are no cases" in done.stderr
    lines = out.read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=CuratedCase) for line in lines] == [
        CASES[3],
        CASES[1],
        CASES[0],
    ]
    assert not (tmp_path / "out.jsonl.part").exists()
    piped = call(filled, "curate", "export", "-", "--service", "shop")
    assert ids(piped.stdout) == ["prompts/0/3", "prompts/0/1"]
    nowhere = call(filled, "curate", "export", f"{tmp_path}/no/out.jsonl", code=Exit.FAILED)
    assert "/no/out.jsonl: cannot be written" in str(nowhere.exception)
    missing = call(filled, "curate", "export", code=Exit.USAGE)
    assert "--mlflow DATASET" in missing.stderr


def test_a_deleted_case_is_gone(filled: KafkaSettings) -> None:
    """A tombstone takes a case out of lists and exports: somebody wants it to be forgotten."""
    asyncio.run(put(filled, Topic.CURATED, b"prompts/0/1", None))
    found = call(filled, "curate", "list", "--json")
    assert ids(found.stdout) == ["prompts/0/3", "prompts/0/2"]


def test_export_to_an_mlflow_dataset(filled: KafkaSettings, tmp_path: Path) -> None:
    """Prompts are inputs, scores outputs, feedback an expectation; a repetition adds nothing."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    export = ("curate", "export", "--mlflow", "hard prompts", "--json")
    first = json.loads(run(filled, tmp_path, *export, DRIFTGATE_MLFLOW_URI=uri).stdout)
    again = json.loads(run(filled, tmp_path, *export, MLFLOW_TRACKING_URI=uri).stdout)
    assert first == again
    assert (first["cases"], first["dataset"]) == (3, "hard prompts")
    done = subprocess.run(
        [sys.executable, "-c", READ_DATASET, uri, "hard prompts"],
        env=environment(filled, tmp_path, MLFLOW_DISABLE_TELEMETRY="true"),
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    records = {one["tags"]["driftgate.event_id"]: one for one in json.loads(done.stdout)}
    assert set(records) == {"prompts/0/1", "prompts/0/2", "prompts/0/3"}
    last = records["prompts/0/3"]
    assert last["inputs"] == {"prompt": CASES[3].prompt, "domain": "general"}
    assert last["outputs"]["rules_score"] == CASES[3].rules_score
    said = {"kind": "user_rating", "value": 0.0, "comment": "No!"}
    assert last["expectations"] == {"feedback": said}
    assert last["tags"]["driftgate.reasons"] == "low_relevance,negative_feedback"
    assert last["tags"]["driftgate.service"] == "shop"


@contextmanager
def sick_server() -> Iterator[str]:
    """An MLflow that answers everything with 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_mlflow_that_is_away_or_sick_is_said(filled: KafkaSettings, tmp_path: Path) -> None:
    """The address, the reason and the variable, and no traceback: also for what is no database."""
    (tmp_path / "text.db").write_text("This is no database. " * 50)
    with sick_server() as sick:
        addresses = {
            sick: "500",
            "http://127.0.0.1:1": "Connection refused",
            f"sqlite:///{tmp_path}/text.db": "not a database",
        }
        for uri, reason in addresses.items():
            done = run(
                filled,
                tmp_path,
                *("curate", "export", "--mlflow", "d"),
                code=Exit.FAILED,
                DRIFTGATE_MLFLOW_URI=uri,
            )
            # As the terminal has it, lines are broken anywhere.
            told = " ".join(done.stderr.split())
            assert f"MLflow at {uri} did not take dataset 'd'" in told
            assert reason in told
            assert "DRIFTGATE_MLFLOW_URI" in told
            assert "Traceback" not in told


def test_feedback_is_sent_and_counted(kafka: KafkaSettings, launch: Launch) -> None:
    """A person's rating, label and judge score count; a wrong id is refused; HTTP shows both."""
    event = enriched(1)
    asyncio.run(serve(kafka, [event]))
    curator = launch("curator", kafka=kafka, DRIFTGATE_HTTP_PORT="0")
    port = port_of(curator)
    eventually("it is ready", lambda: get(port, "/readyz") == (200, "ok\n"))
    assert get(port, "/healthz") == (200, "ok\n")

    def send(*arguments: str) -> dict[str, Any]:
        done = call(kafka, "feedback", "send", *arguments, "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    send(event.id, "--rating", "0.2", "--comment", "meh", "--actor", "ann")
    send(event.id, "--label", "wrong")
    send(event.id, "--judge", "0.75")
    unknown = send("prompts/9/9", "--rating", "1")
    eventually("three are counted", lambda: len(asyncio.run(heard(kafka))) == 3)
    found = asyncio.run(heard(kafka))
    assert sorted(one.value for one in found) == [0.0, 0.2, 0.75]
    eventually("the other is refused", lambda: asyncio.run(letters(kafka)))
    (letter,) = asyncio.run(letters(kafka))
    assert letter.source.event_id() == unknown["position"]
    for wrong in (("--rating", "2"), (), ("--rating", "1", "--label", "wrong")):
        call(kafka, "feedback", "send", event.id, *wrong, code=Exit.USAGE)

    def shown() -> bool:
        text = get(port, "/metrics")[1]
        return all(
            line in text
            for line in (
                'driftgate_feedback_total{kind="user_rating",rating="negative"} 1.0',
                'driftgate_feedback_total{kind="judge_score",rating="positive"} 1.0',
                'driftgate_feedback_rejected_total{reason="unknown_event"} 1.0',
                'driftgate_feedback_joined_total{by="table"} 3.0',
                'driftgate_curated_cases_total{reason="negative_feedback"} ',
                'driftgate_curator_lag_messages{topic="prompts.feedback"} 0.0',
                "driftgate_remembered_events 1.0",
            )
        )

    eventually("the numbers are shown", shown)
    assert curator.stop() == 0
