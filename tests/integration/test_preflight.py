"""The checklist before a rollout, on a real broker; and the rehearsal of a rollback (M70, M71)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftgate.errors import Exit
from driftgate.reading import decode_control, read_all
from schemas.control import CommandRejected, RollbackConfirmed, RolloutAdvanced, RolloutStarted
from schemas.log import Command
from schemas.policy import Policy
from schemas.preflight import PreflightCheck
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.folding import operator
from tests.support.monitoring import QUICK, Traffic
from tests.support.processes import Launch
from tests.support.receivers import webhook
from tests.support.topics import put
from tests.support.workers import until

STRICT: Policy = msgspec.structs.replace(QUICK, preflight=list(PreflightCheck))


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    """A policy that requires every check."""
    path = tmp_path / "strict.yaml"
    path.write_bytes(msgspec.yaml.encode(STRICT))
    return path


def report(path: Path, **changes: Any) -> Path:
    """A report as `driftgate validate` writes it."""
    comparison = {
        "semantic_weight": 0.3,
        "improvement": 0.1,
        "improvement_low": 0.08,
        "rows": 500,
        "passes": True,
        "reason": "it helps",
    }
    contents = {"file": "labelled.jsonl", "comparison": comparison | changes}
    path.write_text(json.dumps(contents), encoding="utf-8")
    return path


def results(text: str) -> dict[str, dict[str, Any]]:
    """The checks that a command printed as JSON, by name."""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {one["check"]: one for one in found if "check" in one}


def test_each_check_says_what_is_wrong_and_what_to_do(
    kafka: KafkaSettings, launch: Launch, policy_file: Path, tmp_path: Path
) -> None:
    """With nothing in place all but topics and policy fail, each with its cure; nothing starts."""
    ran = launch("rollout", "preflight", "--policy", str(policy_file), "--json", kafka=kafka)
    assert ran.wait() == Exit.FAILED
    found = results(ran.log)
    assert set(found) == set(PreflightCheck)
    assert {name for name, one in found.items() if one["passed"]} == {"topics", "policy"}
    assert all(one["cure"] for one in found.values() if not one["passed"])
    assert "no analyzer of 'default'" in found["workers"]["found"]
    assert "driftgate validate" in found["validation"]["cure"]
    assert "driftgate rollout rehearse" in found["rehearsal"]["cure"]
    assert "DRIFTGATE_NOTIFY_URLS" in found["alerts"]["cure"]

    refused = launch("rollout", "start", "--policy", str(policy_file), kafka=kafka)
    assert refused.wait() == Exit.REFUSED
    assert "the policy requires" in refused.log
    assert asyncio.run(read_all(kafka, Topic.COMMANDS, committed_only=False)) == []

    shown = launch("rollout", "preflight", "--policy", str(policy_file), kafka=kafka)
    assert shown.wait() == Exit.FAILED
    assert "required" in shown.log
    assert (tmp_path / "strict.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"passes": False, "reason": "no proof"}, "no proof"),
        ({"semantic_weight": 0.5}, "is about a blend at 0.5, and semantic blends at 0.3"),
        ({"rows": "many"}, "is no validation report"),
    ],
)
def test_a_report_must_be_about_this_green(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    """One that says no, that is about another blend, or that is none, is no validation (M11)."""
    path = report(tmp_path / "report.json", **changes)
    ran = launch(
        "rollout", "preflight", "--json", kafka=kafka, DRIFTGATE_VALIDATION_REPORT=str(path)
    )
    assert ran.wait() == Exit.FAILED
    validation = results(ran.log)["validation"]
    assert not validation["passed"]
    assert found in validation["found"]


def test_a_rollout_that_was_prepared_starts(
    kafka: KafkaSettings, launch: Launch, policy_file: Path, tmp_path: Path
) -> None:
    """Workers, report, rehearsal and alert route: then it starts, and the event holds the list."""
    launch("monitor", kafka=kafka)
    validated = report(tmp_path / "report.json")

    async def run() -> tuple[list[Any], list[Any]]:
        traffic = Traffic(kafka, "default")
        with webhook() as hook:
            variables = {
                "DRIFTGATE_VALIDATION_REPORT": str(validated),
                "DRIFTGATE_NOTIFY_URLS": hook.apprise_url,
            }

            async def rollout(*arguments: str) -> tuple[int, str]:
                process = launch(
                    "rollout", *arguments, "--policy", str(policy_file), kafka=kafka, **variables
                )
                return await asyncio.to_thread(process.wait), process.log

            async with traffic.flowing():
                # Whoever goes around the command line is refused by the monitor.
                asked = operator(Command.START, "raw", service="default", policy=STRICT)
                await put(kafka, Topic.COMMANDS, b"default", msgspec.json.encode(asked))
                code, text = await rollout("rehearse", "--json", "--timeout", "60")
                assert code == Exit.OK, text
                done = msgspec.json.decode(text.splitlines()[-1], type=RollbackConfirmed)
                assert done.workers == ["w1", "w2"]
                code, text = await rollout("preflight", "--json")
                assert code == Exit.OK, text
                checks = results(text)
                code, text = await rollout("start", "--json")
                assert code == Exit.OK, text

                async def advanced() -> bool:
                    return any(isinstance(e, RolloutAdvanced) for e in await events())

                async def events() -> list[Any]:
                    records = await read_all(kafka, Topic.CONTROL, committed_only=False)
                    return [decode_control(record) for record in records]

                await until("the rollout advances, which the rehearsal did not", advanced)
                assert hook.posted
                return list(checks.values()), await events()

    checks, events = asyncio.run(run())
    assert all(check["passed"] for check in checks)
    (refused,) = [e for e in events if isinstance(e, CommandRejected)]
    assert "the policy asks for checks that have not passed" in refused.reason
    rehearsal, started = [e for e in events if isinstance(e, RolloutStarted)]
    assert (rehearsal.rehearsal, started.rehearsal) == (True, False)
    assert {r.check for r in started.preflight if r.passed} == set(PreflightCheck)
    before = events[: events.index(started)]
    assert not any(isinstance(e, RolloutAdvanced) for e in before)
