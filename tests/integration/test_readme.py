"""What the README and docs/ say is true: examples run, tables are those of the code."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from driftgate.cli import app
from driftgate.demo.story import Outcome
from driftgate.errors import Exit
from driftgate.settings import ENVIRONMENT
from schemas.alerting import AlertRule, AlertRules
from schemas.catalogue import catalogue, event_named
from schemas.control import Verdict
from schemas.drift import DriftFeature, DriftRules
from schemas.policy import Gate, GateRole, Metric, Policy, Stage, Windows, parse_policy
from schemas.preflight import PreflightCheck
from schemas.prompts import FallbackReason, RejectionCode
from schemas.rollout import Deployment, Phase, Segment
from schemas.settings import KafkaSettings
from schemas.topics import DAY_MS, TOPICS, Topic
from tests.support.contract import errors_of
from tests.support.curating import heard
from tests.support.processes import ROOT, SOON_S, Driftgate, Launch, environment, eventually
from tests.support.topics import wait_for_outcome

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES = {"README.md": README} | {f"docs/{name}": text for name, text in DOCS.items()}
ADDRESS = "127.0.0.1:9092"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def between(text: str, name: str) -> str:
    """What stands between the marks of a generated part."""
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->", maxsplit=1)[0]


def first_column(text: str, heading: str) -> list[str]:
    """The first cells of the table whose head begins with a cell."""
    rows = text.split(f"\n| {heading} |")[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [row.split("|")[1].strip().strip("`") for row in rows]


def settings_table() -> str:
    rows = [f"| `{name}` | {f'`{v.default}`' if v.default else ''} | {v.meaning} |"
            for name, v in ENVIRONMENT.items()]  # fmt: skip
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows, ""])


def topics_table() -> str:
    rows = []
    for spec in TOPICS:
        kept = "compacted" if spec.compact else f"{spec.retention_ms // DAY_MS} days"
        variable = f"DRIFTGATE_{spec.spread.upper().removesuffix('S')}_PARTITIONS"
        rows.append(f"| `{spec.topic}` | {spec.key} | {spec.content} | {kept} | `{variable}` |")
    head = ["| topic | key | content | kept | partitions |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def localised(code: str, kafka: KafkaSettings) -> str:
    """An example of the README for the topics of a test."""
    assert ADDRESS in code
    code = code.replace(ADDRESS, kafka.bootstrap_servers)
    for topic in Topic:
        name = re.escape(topic.value)
        quoted = rf'(?<=")({name})(?=")|(?<=-t )({name})(?=\s)'
        code = re.sub(quoted, lambda match: kafka.topic_prefix + match[0], code)
    assert kafka.topic_prefix in code, "the example names no topic"
    return code


def example(name: str) -> str:
    return next(code for code in blocks(README, "python") if code.startswith(f"# {name}\n"))


@pytest.fixture
def service(kafka: KafkaSettings, launch: Launch, tmp_path: Path) -> Iterator[KafkaSettings]:
    """An analyzer that serves rules, since it finds no model, and a monitor: as two terminals."""
    nowhere = str(tmp_path / "no-model-here")
    analyzer = launch("analyzer", kafka=kafka, DRIFTGATE_MODEL=nowhere)
    monitor = launch("monitor", kafka=kafka)
    analyzer.wait_for_log("working on partitions")
    yield kafka
    assert analyzer.code is None
    assert monitor.code is None


def run(command: list[str], kafka: KafkaSettings, home: Path) -> str:
    done = subprocess.run(
        command,
        env=environment(kafka, home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_python_examples_publish_a_prompt_and_read_a_decision(
    service: KafkaSettings, tmp_path: Path
) -> None:
    """What a stranger copies from the README gets a prompt analysed and sees a rollout start."""
    (tmp_path / "publish.py").write_text(localised(example("publish.py"), service))
    place = run([sys.executable, "-W", "error", "publish.py"], service, tmp_path).strip()
    found = asyncio.run(wait_for_outcome(service, 1))
    assert [(one.id, one.prompt_id) for one in found.enriched] == [(place, "ticket-4711")]

    (tmp_path / "watch.py").write_text(localised(example("watch.py"), service))
    watching = subprocess.Popen(
        [sys.executable, "-W", "error", "watch.py"],
        cwd=tmp_path,
        env=environment(service, tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        start = shlex.split('driftgate rollout start --reason "release 2.4"')
        run([sys.executable, "-m", *start, "--timeout", "60"], service, tmp_path)
        assert watching.stdout is not None
        line = watching.stdout.readline()
    finally:
        watching.kill()
        watching.communicate()
    assert re.fullmatch(r"\S+Z rollout\.started 0% release 2\.4\n", line)


def test_python_example_gives_feedback(
    service: KafkaSettings, tmp_path: Path, launch: Launch
) -> None:
    """What a stranger says of a result, as the README shows it, is counted for the served arm."""
    launch("curator", kafka=service)
    for name in ("publish.py", "feedback.py"):
        (tmp_path / name).write_text(localised(example(name), service))
        place = run([sys.executable, "-W", "error", name], service, tmp_path).strip()
    eventually("it is counted", lambda: asyncio.run(heard(service)))
    (found,) = asyncio.run(heard(service))
    assert place == f"{service.topic(Topic.FEEDBACK)}/{found.partition}/{found.offset}"
    assert (found.service, found.value) == ("default", 0.0)


def test_kcat_example(service: KafkaSettings, tmp_path: Path, launch: Launch) -> None:
    """The kcat example runs where kcat is on the PATH; elsewhere its syntax and names are checked.

    To run it: the Debian package is called kcat.
    """
    code = next(code for code in blocks(README, "sh") if "kcat" in code)
    run(["sh", "-n", "-c", code], service, tmp_path)
    topics = re.findall(r"-t (\S+)", code)
    assert set(topics) <= set(Topic)
    assert {"-P", "-C"} <= set(shlex.split(code))
    prompt = json.loads(re.search(r"echo '(.*)'", code)[1])  # type: ignore[index]  # it is there
    assert errors_of(event_named("PromptSubmitted").type, prompt) == []
    kcat = shutil.which("kcat")
    if kcat is None:
        return
    start: Driftgate = launch("rollout", "start", "--timeout", "60", kafka=service)
    assert start.wait() == 0
    local = localised(code, service)
    run(["sh", "-e", "-c", local], service, tmp_path)
    reading = local.split("-k article-7\n")[1]

    def shown() -> str:
        out = run(["sh", "-e", "-c", reading], service, tmp_path)
        return out if '"Explain inflation' in out and "rollout.started" in out else ""

    out = eventually("kcat shows the result and the decision", shown)
    assert re.search(r'^article-7 {"id":', out, re.MULTILINE)
    assert "ce_type=driftgate.rollout.started.v1" in out


def shell_lines() -> list[str]:
    found = [line for text in PAGES.values() for code in blocks(text, "sh")
             for line in code.splitlines()]  # fmt: skip
    found += re.findall(r"^ {4}(driftgate .*)$", "\n".join(PAGES.values()), re.MULTILINE)
    return [line for line in found if line.startswith("driftgate ")]


@pytest.mark.parametrize("line", sorted(set(shell_lines())))
def test_commands_exist(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `driftgate` command of the pages is one that the command line takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("prompts.jsonl", "labelled.jsonl", "my-policy.yaml", "reference.json"):
        Path(name).touch()
    command: Any = typer.main.get_command(app)
    name, *arguments = shlex.split(line, comments=True)
    context = command.make_context(name, list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    assert context.params is not None


@pytest.mark.parametrize(
    ("page", "name", "right"),
    [
        ("README.md", "settings", settings_table()),
        ("docs/events.md", "topics", topics_table()),
    ],
)
def test_generated_tables_are_up_to_date(page: str, name: str, right: str) -> None:
    """A table that the code decides is the code's; see the end of this file."""
    assert between(PAGES[page], name) == right


def test_lists_are_complete() -> None:
    """Codes, keys, metrics and verdicts of the pages are all that there are."""
    assert sorted(first_column(README, "code")) == sorted(RejectionCode)
    exits = [int(code) for code in first_column(README, "exit code")]
    assert exits == [*Exit, 130]
    policy = DOCS["policy.md"]
    assert first_column(policy, "metric") == list(Metric)
    assert set(first_column(policy, "role")) == set(GateRole)
    assert set(first_column(policy, "verdict")) == set(Verdict)
    assert set(first_column(DOCS["architecture.md"], "phase")) == set(Phase)
    assert set(first_column(policy, "check")) == set(PreflightCheck)
    assert first_column(DOCS["drift.md"], "feature") == list(DriftFeature)
    assert first_column(policy, "key") == list(DriftRules.__struct_fields__)
    cells = first_column(DOCS["alerts.md"], "rule")
    rules = {rule for cell in cells for rule in cell.split("`, `")}
    assert rules == set(AlertRule)


def test_policy_example_is_complete_and_valid() -> None:
    """The example policy is taken as it stands, and shows every key that there is."""
    (text,) = blocks(DOCS["policy.md"], "yaml")
    parse_policy(text, file="docs/policy.md")
    keys = set(re.findall(r"^[ -]*(\w+):", text, re.MULTILINE))
    for part in (Policy, AlertRules, DriftRules, Deployment, Windows, Segment, Stage, Gate):
        assert set(part.__struct_fields__) <= keys


def test_event_examples_keep_the_contract() -> None:
    """Each event type of the pages has an example, which its schema accepts."""
    text = DOCS["events.md"]
    found = dict(re.findall(r"<!-- (\w+) -->\n```json\n(.*?)\n```", text, re.DOTALL))
    for name, value in found.items():
        assert errors_of(event_named(name).type, json.loads(value)) == [], name
    expected = {event.title for event in catalogue() if event.ce_type} | {"PromptSubmitted"}
    assert expected <= set(found)
    assert set(re.findall(r"`(\w+)`", text)) & set(FallbackReason)


def test_demo_sample_has_the_fields_of_the_outcome() -> None:
    """The last line that the README shows of the demo is of the demo's present form."""
    last = between(README, "demo").splitlines()[-2]
    outcome = msgspec.json.decode(last, type=Outcome)
    assert list(json.loads(last)) == list(Outcome.__struct_fields__)
    assert (outcome.rolled_back, outcome.lost, outcome.duplicated) == (True, 0, 0)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    """A relative link names a file, and a heading in it, that exist."""
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, target


def write_tables() -> None:
    """Write them anew: `PYTHONPATH=. python tests/integration/test_readme.py`."""
    for file, name, right in (
        (ROOT / "README.md", "settings", settings_table()),
        (ROOT / "docs" / "events.md", "topics", topics_table()),
    ):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(between(text, name), right), encoding="utf-8")


if __name__ == "__main__":
    write_tables()
