"""Taking a partition over from checkpoints in any condition: the story goes on undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from driftgate.reading import read_all
from schemas.log import Command, CommandRecord, LogRecord, RowFlag
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.fold import LogEntry
from streams.kafka_io import KafkaIO
from streams.runner import FoldRunner
from tests.support.folding import heartbeat, measurement, operator, rows_of
from tests.support.monitoring import (
    QUICK,
    LogWriter,
    as_undisturbed,
    control_events,
    topic_limit,
)

MARKER, STATE = b"partition", b"service/shop"
RECORDS, COMMITTED = 30, 20


class Kept:
    """Checkpoints in memory, and all that they ever were."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.history: list[dict[bytes, bytes]] = []

    async def load(self, partition: int) -> Mapping[bytes, bytes]:
        assert partition == 0
        return self.values

    async def save(self, partition: int, values: Mapping[bytes, bytes]) -> None:
        assert partition == 0
        self.values |= values
        self.history.append(dict(self.values))


class Given:
    """A record as it comes from Faust."""

    def __init__(self, record: Any) -> None:
        self.key: bytes | None = record.key
        self.entry = LogEntry(record.partition, record.offset, record.timestamp, record.value)
        self.acknowledged = False

    def ack(self) -> None:
        self.acknowledged = True


def story() -> list[LogRecord]:
    """A rollout that breaks its gate after most of the records are acknowledged."""
    asked = operator(Command.START, "s", policy=QUICK)
    records: list[LogRecord] = [CommandRecord(service="shop", command=asked)]
    for n in range(RECORDS - 2):
        rows = rows_of(
            range(n * 10, n * 10 + 10),
            flags=RowFlag.CANDIDATE | RowFlag.SEMANTIC,
            coherence=0.8 if n < COMMITTED else 0.1,
        )
        records.append(measurement(rows, service="shop", revision=1))
    return [*records, heartbeat("w1", 2, service="shop")]


async def write(kafka: KafkaSettings) -> list[Given]:
    """Write the story into the log, and read it as a monitor does."""
    async with LogWriter(kafka) as log:
        for record in story():
            await log.write(record)
    return [Given(r) for r in await read_all(kafka, Topic.LOG, committed_only=False)]


async def take(kafka: KafkaSettings, kept: Kept, records: list[Given]) -> None:
    """Fold records in a monitor that checkpoints after each of them."""
    io = KafkaIO(kafka)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 10.0
        return now

    runner = FoldRunner(io, kept, clock)
    try:
        for record in records:
            await runner.take(record)
    finally:
        await io.stop()


def nothing(kept: Kept) -> None:
    """As it should be."""


def lost(kept: Kept) -> None:
    kept.values = {}


def without_state(kept: Kept) -> None:
    del kept.values[STATE]


def damaged_state(kept: Kept) -> None:
    kept.values[STATE] = b"\x00" + kept.values[STATE]


def damaged_marker(kept: Kept) -> None:
    kept.values[MARKER] = b"\xc1"


def old(kept: Kept) -> None:
    kept.values = kept.history[5]


def old_state_under_a_new_marker(kept: Kept) -> None:
    kept.values[STATE] = kept.history[5][STATE]


def new_state_under_an_old_marker(kept: Kept) -> None:
    kept.values[MARKER] = kept.history[5][MARKER]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (nothing, ""),
        (lost, "there is no checkpoint; rebuilding"),
        (without_state, "no state of service 'shop'; rebuilding"),
        (damaged_state, "not a snapshot"),
        (damaged_marker, "the checkpoint cannot be read"),
        (old, "were not delivered to us; reading them from the log"),
        (old_state_under_a_new_marker, "an old state of service 'shop'; rebuilding"),
        (new_state_under_an_old_marker, "reading them from the log"),
    ],
)
def test_a_partition_is_taken_over(
    harm: Any, says: str, kafka: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever became of the checkpoint, it is said, and nothing is missing or twice."""

    async def run() -> list[str]:
        kept = Kept()
        records = await write(kafka)
        await take(kafka, kept, records[: COMMITTED + 3])
        assert all(r.acknowledged for r in records[: COMMITTED + 3])
        harm(kept)
        # Three were acknowledged and not committed: they are given again.
        await take(kafka, kept, records[COMMITTED:])
        return control_events(await as_undisturbed(kafka))

    assert asyncio.run(run()) == [
        "rollout.started",
        "gate.breached",
        "rollout.rolled_back",
        "rollback.confirmed",
    ]
    warnings = [r.getMessage() for r in caplog.records if r.name == "driftgate.monitor"
                and r.levelname == "WARNING"]  # fmt: skip
    assert any(says in text for text in warnings) if says else not warnings, warnings


def test_what_was_not_delivered_is_in_no_checkpoint(kafka: KafkaSettings) -> None:
    """After a failed delivery the state is dropped: a checkpoint of it would lose the outputs."""

    async def run() -> None:
        kept = Kept()
        records = await write(kafka)
        await take(kafka, kept, records[:5])
        reached = len(kept.history)
        await topic_limit(kafka, Topic.CONTROL, 50)
        io = KafkaIO(kafka)
        now = 0.0
        runner = FoldRunner(io, kept, lambda: now)

        async def take_all() -> None:
            for record in records[5:]:
                await runner.take(record)

        try:
            with pytest.raises(KafkaError):
                await take_all()
            # Now one would be due.
            now = 100.0
            await runner.checkpoint()
            assert len(kept.history) == reached
        finally:
            await io.stop()
        await topic_limit(kafka, Topic.CONTROL, 2**20)
        await take(kafka, kept, records[5:])
        await as_undisturbed(kafka)

    asyncio.run(run())
