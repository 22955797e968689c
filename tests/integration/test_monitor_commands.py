"""Operator commands on real Kafka: good, refused, unreadable, repeated; and by the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from driftgate.errors import Exit
from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import AlertEvent, CommandRejected, ControlEvent, RolloutStarted
from schemas.log import Command, OperatorCommand
from schemas.policy import default_policy
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.split import SAMPLE_RATIO
from tests.support.folding import operator
from tests.support.monitoring import QUICK, as_undisturbed, ask, committed, control_events
from tests.support.processes import Launch
from tests.support.topics import put
from tests.support.workers import until


async def send(kafka: KafkaSettings, *commands: OperatorCommand | bytes | None) -> None:
    """Commands as anybody may send them: plain JSON, or not."""
    for one in commands:
        value = cloudevents.encode_json(one) if isinstance(one, OperatorCommand) else one
        await put(kafka, Topic.COMMANDS, b"shop", value)


async def answers(kafka: KafkaSettings) -> list[ControlEvent]:
    """The control events."""
    records = await read_all(kafka, Topic.CONTROL, committed_only=False)
    return [cloudevents.decode_json(r.value, cloudevents.CONTROL_EVENT) for r in records]


async def alerts(kafka: KafkaSettings) -> list[AlertEvent]:
    """The alerts."""
    records = await read_all(kafka, Topic.ALERTS, committed_only=False)
    return [cloudevents.decode_json(r.value, AlertEvent) for r in records]


def test_good_and_refused_commands(kafka: KafkaSettings, launch: Launch) -> None:
    """Each command has one answer on the control topic, with its id; one id is obeyed once."""
    launch("monitor", kafka=kafka)
    start = operator(Command.START, "start-1", policy=QUICK)

    async def run() -> list[ControlEvent]:
        await send(
            kafka,
            operator(Command.PAUSE, "too-early"),
            start,
            start,
            operator(Command.PAUSE, "pause-1", reason="lunch"),
            start,
            operator(Command.ABORT, "abort-1"),
            operator(Command.ABORT, "abort-2"),
        )

        async def answered() -> bool:
            return any(e.command_id == "abort-2" for e in await answers(kafka))

        await until("the last command is answered", answered)
        await as_undisturbed(kafka)
        return await answers(kafka)

    events = asyncio.run(run())
    assert [(e.command_id, e.__struct_config__.tag) for e in events] == [
        ("too-early", "command.rejected"),
        ("start-1", "rollout.started"),
        ("pause-1", "rollout.paused"),
        ("abort-1", "rollout.rolled_back"),
        ("abort-2", "command.rejected"),
    ]
    assert {e.actor for e in events} == {"ann"}
    assert events[2].reason == "lunch"


def test_a_start_without_a_policy_gets_the_monitors_own(
    kafka: KafkaSettings, launch: Launch
) -> None:
    """What a command leaves out is settled before it is in the log, so a replay has it too."""
    launch("monitor", kafka=kafka)

    async def run() -> ControlEvent:
        answer = await ask(kafka, Command.START, "shop", policy=None)
        await as_undisturbed(kafka)
        return answer

    answer = asyncio.run(run())
    assert isinstance(answer, RolloutStarted)
    assert answer.policy_hash == default_policy().hash


def test_an_unreadable_command_raises_an_alert(kafka: KafkaSettings, launch: Launch) -> None:
    """What is no command is alerted once each, also over a crash, and the next one is obeyed."""
    wrong: dict[str, Any] = {"id": "x", "service": "shop", "command": "explode", "actor": "ann"}
    huge = operator(Command.START, "huge", policy=msgspec.structs.replace(
        QUICK, gates=[msgspec.structs.replace(QUICK.gates[0], name=f"g-{n}") for n in range(500)]
    ))  # fmt: skip
    unreadable = [b"\x00\xff", b"", None, b"{}", msgspec.json.encode(wrong), huge]
    monitor = launch("monitor", kafka=kafka)

    async def run() -> list[AlertEvent]:
        nonlocal monitor
        await send(kafka, *unreadable)

        async def told() -> bool:
            return len(await alerts(kafka)) >= len(unreadable)

        await until("all are alerted", told)
        monitor.kill()
        monitor = launch("monitor", kafka=kafka)
        answer = await ask(kafka, Command.START, "shop")
        assert isinstance(answer, RolloutStarted)
        return await alerts(kafka)

    found = asyncio.run(run())
    assert (
        len(found) == len({a.id for a in found}) == len({a.key for a in found}) == len(unreadable)
    )
    assert {a.service for a in found} == {"shop"}
    assert any("explode" in a.summary for a in found)
    assert any("over the limit" in a.summary for a in found)
    assert all("offset" in a.summary and a.cure for a in found)


def test_the_command_line_steers_a_rollout(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Start, pause, resume, promote, abort, status: JSON on stdout, exit codes as documented."""
    monitor = launch("monitor", kafka=kafka)
    monitor.wait_for_log("Kafka cluster")
    policy = tmp_path / "quick.yaml"
    policy.write_text(msgspec.yaml.encode(QUICK).decode(), encoding="utf-8")

    def rollout(*arguments: str, **variables: str) -> tuple[int, str]:
        process = launch("rollout", *arguments, "--service", "shop", kafka=kafka, **variables)
        return process.wait(), process.log

    code, text = rollout("status")
    assert code == Exit.FAILED
    assert "nothing is known of service 'shop'" in text

    code, text = rollout("start", "--policy", str(policy), "--actor", "bob", "--json")
    assert code == Exit.OK, text
    started = msgspec.json.decode(text.splitlines()[-1], type=RolloutStarted)
    assert (started.actor, started.policy_hash, started.blue, started.green) == (
        "bob",
        QUICK.hash,
        "baseline",
        "semantic",
    )
    for arguments, kind in (
        (("pause", "--reason", "lunch"), "rollout.paused"),
        (("resume",), "rollout.resumed"),
        (("promote",), "rollout.advanced"),
    ):
        code, text = rollout(*arguments, "--json")
        assert code == Exit.OK, text
        assert msgspec.json.decode(text)["type"] == kind

    code, text = rollout("resume")
    assert code == Exit.REFUSED == 6
    assert "nothing is paused" in text

    code, text = rollout("status", "--json")
    assert code == Exit.OK, text
    status = msgspec.json.decode(text)
    assert (status["rollout"]["phase"], status["rollout"]["share"]) == ("progressing", 0.25)
    assert {g["gate"] for g in status["gates"]["gates"]} == {
        SAMPLE_RATIO,
        *(g.name for g in QUICK.gates),
    }
    code, text = rollout("status")
    assert code == Exit.OK
    assert "progressing" in text
    assert "coherence" in text

    code, text = rollout("abort", "--reason", "enough")
    assert code == Exit.OK, text
    assert "rollout.rolled_back" in text
    assert "enough" in text

    assert monitor.stop() == 0
    code, text = rollout("start", "--timeout", "1")
    assert code == Exit.NO_ANSWER == 7
    assert "is a monitor running" in text


def test_refused_commands_of_before_a_crash_are_not_answered_twice(
    kafka: KafkaSettings, launch: Launch
) -> None:
    """Commands that stand in their topic when a monitor starts are answered once, over kills."""

    async def run() -> list[str]:
        await send(kafka, *(operator(Command.RESUME, f"r-{n}") for n in range(20)))
        for _ in range(2):
            monitor = launch("monitor", kafka=kafka)
            await asyncio.to_thread(monitor.wait_for_log, "from log offset")
            monitor.kill()
        launch("monitor", kafka=kafka)

        async def done() -> bool:
            return len(await answers(kafka)) >= 20 and await committed(kafka) >= 20

        await until("all are answered and acknowledged", done)
        return control_events(await as_undisturbed(kafka))

    assert asyncio.run(run()) == ["command.rejected"] * 20
    assert CommandRejected.__struct_config__.tag == "command.rejected"
