"""A real monitor on a real log: what it says is what the fold of that log says."""

from __future__ import annotations

import asyncio
import random
import re

import msgspec
import pytest

from driftgate.reading import read_all
from schemas.control import AlertEvent, AlertStatus
from schemas.log import Command, Tick, decode_log_record, encode_log_record
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.kafka_checkpoints import KafkaCheckpoints
from streams.kafka_io import KafkaIO
from streams.runner import FoldRunner
from tests.support.folding import heartbeat, measurement, rows_of
from tests.support.monitoring import (
    LogWriter,
    Traffic,
    as_undisturbed,
    ask,
    committed,
    control_events,
    log_end,
    topic_limit,
    until_confirmed,
)
from tests.support.processes import Launch
from tests.support.workers import until


def alerts(records: list[object]) -> list[AlertEvent]:
    return [msgspec.json.decode(r.value, type=AlertEvent) for r in records]  # type: ignore[attr-defined]


async def until_alert(kafka: KafkaSettings, text: str) -> AlertEvent:
    """The first alert whose summary has a text in it."""

    async def found() -> AlertEvent | None:
        records = await read_all(kafka, Topic.ALERTS, committed_only=False)
        return next((a for a in alerts(records) if text in a.summary), None)

    alert: AlertEvent = await until(f"an alert says {text!r}", found)
    return alert


def test_a_rollout_is_folded(kafka: KafkaSettings, launch: Launch) -> None:
    """Start, three stages, harm, rollback, confirmation: every output is that of the pure fold.

    The log is committed to its end, and what the process prints has no control characters.
    """
    monitor = launch("monitor", kafka=kafka)

    async def run() -> list[str]:
        async with Traffic(kafka, "shop").flowing() as traffic:
            await ask(kafka, Command.START, "shop")
            await traffic.until_stage(2)
            traffic.candidate = {"coherence": 0.4}
            await traffic.until_phase(Phase.ROLLED_BACK)
            await until_confirmed(kafka)
        everything = await as_undisturbed(kafka)
        end = await log_end(kafka)

        async def caught_up() -> bool:
            return await committed(kafka) >= end

        await until(f"the log is committed up to {end}", caught_up)
        return control_events(everything)

    events = asyncio.run(run())
    assert events == [
        "rollout.started",
        "rollout.advanced",
        "rollout.advanced",
        "gate.breached",
        "rollout.rolled_back",
        "rollback.confirmed",
    ]
    assert monitor.stop() == 0
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", monitor.log)
    assert "Unclosed" not in monitor.log
    assert "Traceback" not in monitor.log


def test_an_idle_log_has_ticks(kafka: KafkaSettings, launch: Launch) -> None:
    """Without a single record from anybody else windows close and time-outs are noticed."""
    launch("monitor", kafka=kafka)

    async def run() -> None:
        await ask(kafka, Command.START, "shop")
        await ask(kafka, Command.ABORT, "shop")
        alert = await until_alert(kafka, "no worker is alive")
        assert alert.status is AlertStatus.FIRING
        records = await read_all(kafka, Topic.LOG, committed_only=False)
        kinds = [type(decode_log_record(r.value)).__name__ for r in records]
        assert kinds[:1] == ["CommandRecord"]
        assert kinds.count("CommandRecord") == 2
        assert set(kinds[2:]) <= {"Tick", "CommandRecord"}
        everything = await as_undisturbed(kafka)
        metrics = [one.value for one in everything if one.topic is Topic.METRICS]
        assert any(b'"final":true' in value for value in metrics)
        # The first worker that comes has applied the state: confirmed and resolved.
        async with LogWriter(kafka) as log:
            await log.write(heartbeat("w1", 2, service="shop"))
        await until_alert(kafka, "is applied by all 1 live workers")
        await as_undisturbed(kafka)

    asyncio.run(run())


def test_a_burst_is_counted_without_anything_that_follows(
    kafka: KafkaSettings, launch: Launch
) -> None:
    """Batches of one moment wait for a look; the owner's tick brings it, long before the idle one.

    The service has no live worker, so without what waits it would be ticked once a minute.
    """
    launch("monitor", kafka=kafka)

    async def run() -> list[str]:
        async with LogWriter(kafka) as log:
            await log.write(*(measurement(rows_of(range(10 * n, 10 * n + 10))) for n in range(20)))

        async def kinds() -> list[str]:
            records = await read_all(kafka, Topic.LOG, committed_only=False)
            return [type(decode_log_record(r.value)).__name__ for r in records]

        async def ticked() -> bool:
            return (await kinds())[-1] == "Tick"

        await until("the owner of the log brings the next look", ticked)
        await as_undisturbed(kafka)
        return await kinds()

    assert asyncio.run(run())[:21] == ["MeasurementBatch"] * 20 + ["Tick"]


def test_an_idle_log_is_woken_after_a_restart(kafka: KafkaSettings) -> None:
    """A monitor that takes over a log in which nothing happens starts its clock again.

    All that was there is acknowledged, so no record would ever come by itself.
    """

    async def run() -> None:
        async with LogWriter(kafka) as log:
            await log.write(Tick(service="shop"))
            await log.raw([(None, b"nobody's")])
        io = KafkaIO(kafka)
        now = 100.0
        # The clock is the test's.
        runner = FoldRunner(io, KafkaCheckpoints(kafka, io), lambda: now)
        try:
            await runner.tick([0])
            assert await log_end(kafka) == 2
            for _ in range(3):
                now += 1.5
                await runner.tick([0])
            assert await log_end(kafka) == 3
            records = await read_all(kafka, Topic.LOG, committed_only=False)
            assert decode_log_record(records[-1].value) == Tick(service="shop")
            assert records[-1].key == b"shop"
            runner.forget({0})
            await runner.tick([])
            assert await log_end(kafka) == 3
        finally:
            await io.stop()

    asyncio.run(run())


def test_nothing_in_the_log_stops_the_monitor(kafka: KafkaSettings, launch: Launch) -> None:
    """Random bytes, no key, no value, a foreign service, a contradicting batch: it goes on."""
    monitor = launch("monitor", kafka=kafka)
    rng = random.Random(5)

    async def run() -> list[str]:
        async with Traffic(kafka, "shop").flowing() as traffic, LogWriter(kafka) as log:
            await ask(kafka, Command.START, "shop")
            foreign = encode_log_record(Tick(service="other"))
            nan = measurement(rows_of(range(3), score=float("nan")), service="shop")
            for _ in range(10):
                await log.raw(
                    [
                        (b"shop", rng.randbytes(rng.randrange(200))),
                        (None, rng.randbytes(20)),
                        (b"", foreign),
                        (b"shop", None),
                        (b"shop", foreign),
                        (b"\xff\xfe", rng.randbytes(20)),
                        (b"shop", encode_log_record(nan)),
                        (b"shop", b"\x91" * 10_000),
                    ]
                )
            await traffic.until_stage(2)
            await ask(kafka, Command.ABORT, "shop")
        return control_events(await as_undisturbed(kafka))

    assert asyncio.run(run())[:3] == ["rollout.started", "rollout.advanced", "rollout.advanced"]
    assert monitor.code is None
    assert monitor.log.count("cannot be read: counted and passed over") >= 40
    assert "has no key" in monitor.log
    assert "starts again" not in monitor.log


@pytest.mark.parametrize("topic", [Topic.METRICS, Topic.LOG])
def test_what_cannot_be_delivered_crashes_and_is_folded_again(
    topic: Topic, kafka: KafkaSettings, launch: Launch
) -> None:
    """An output or a tick that Kafka refuses ends the process, which starts again by itself.

    Neither the agent nor the timer dies silently, and nothing is skipped: once Kafka takes them,
    all outputs are there, once.
    """
    monitor = launch("monitor", kafka=kafka)

    async def run() -> None:
        async with LogWriter(kafka) as log:
            await log.write(heartbeat("w1", 0, service="shop", interval_ms=60_000))
            await ask(kafka, Command.START, "shop")
            await topic_limit(kafka, topic, 50)
            await until("the monitor crashes", lambda: "starts again" in monitor.log)
            await topic_limit(kafka, topic, 2**20)
            before = await log_end(kafka)
            await until("ticks go on", lambda: _beyond(kafka, before + 2))
        await as_undisturbed(kafka)

    asyncio.run(run())
    assert monitor.code is None
    assert "MessageSizeTooLargeError" in monitor.log
    assert monitor.stop() == 0


async def _beyond(kafka: KafkaSettings, offset: int) -> bool:
    return await log_end(kafka) > offset
