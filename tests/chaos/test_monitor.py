"""Monitors under fire: decisions replay to the byte, and each service keeps its state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from driftgate.reading import read_all
from driftgate.topics import ensure_topics
from schemas.log import Command, CommandRecord, LogRecord, RowFlag
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.folding import heartbeat, measurement, operator, rows_of
from tests.support.monitoring import QUICK, LogWriter, as_undisturbed, control_events
from tests.support.processes import Driftgate, Launch
from tests.support.workers import until

KINDS = [
    "rollout.started",
    "rollout.paused",
    "rollout.resumed",
    "gate.breached",
    "rollout.rolled_back",
    "rollback.confirmed",
]
"""What is decided in each of the rollouts below."""

MANY_DECISIONS = 1000
KILLS = 20
LONG_S = 240.0
"""A bound, not a measurement: a thousand decisions, or twenty starts of a process."""


def rollout(number: int, service: str) -> Iterator[LogRecord]:
    """A rollout that is paused, resumed, and harmful: each of `KINDS` is decided once.

    Args:
        number: how many there were before.
        service: whose.
    """
    revision = 4 * number

    def steer(kind: Command) -> LogRecord:
        asked = operator(kind, f"{kind}-{number}", service=service, policy=QUICK)
        return CommandRecord(service=service, command=asked)

    def rows(part: int, coherence: float) -> LogRecord:
        first = (2 * number + part) * 200
        flags = np.where(np.arange(200) % 2, RowFlag.CANDIDATE | RowFlag.SEMANTIC, 0)
        columns = rows_of(range(first, first + 200), flags=flags, coherence=coherence)
        return measurement(columns, service=service, revision=revision + 3)

    yield steer(Command.START)
    yield steer(Command.PAUSE)
    yield steer(Command.RESUME)
    yield rows(0, coherence=0.8)
    yield rows(1, coherence=0.1)
    yield heartbeat("w1", revision + 4, service=service)


class Writer:
    """Writes rollout after rollout of some services into the log, one a partition in turn."""

    def __init__(self, kafka: KafkaSettings, services: Sequence[str] = ("shop",)) -> None:
        self._kafka = kafka
        self._services = services
        self._numbers = dict.fromkeys(services, 0)

    @property
    def decisions(self) -> int:
        """How many follow from what was written in whole."""
        return len(KINDS) * sum(self._numbers.values())

    async def write(self, log: LogWriter, pause_s: float) -> None:
        """One rollout of each service, record by record."""
        stories = [rollout(self._numbers[name], name) for name in self._services]
        for turn in zip(*stories, strict=True):
            for place, record in enumerate(turn):
                await log.write(record, partition=place % self._kafka.service_partitions)
            await asyncio.sleep(pause_s)
        for name in self._services:
            self._numbers[name] += 1

    @asynccontextmanager
    async def flowing(self, pause_s: float) -> AsyncIterator[None]:
        """Write while the block runs, and end with a whole rollout."""
        ending = False

        async def flow() -> None:
            async with LogWriter(self._kafka) as log:
                while not ending:
                    await self.write(log, pause_s)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            ending = True
            await task


async def until_decided(kafka: KafkaSettings, decisions: int) -> None:
    """Wait until so many decisions stand on the control topic."""

    async def found() -> bool:
        return len(await read_all(kafka, Topic.CONTROL, committed_only=False)) >= decisions

    await until(f"{decisions} decisions", found, within_s=LONG_S)


def verify(launch: Launch, kafka: KafkaSettings, decisions: int, service: str = "shop") -> None:
    """`driftgate replay --verify` finds exactly these decisions, and each as it follows."""
    replay = launch("replay", "--service", service, "--verify", kafka=kafka)
    code = replay.wait(LONG_S)
    assert code == 0, replay.log_tail()
    assert f"all {decisions} decisions of '{service}' follow from its log" in replay.log


@pytest.mark.timeout(600)
def test_a_thousand_decisions_and_twenty_kills(kafka: KafkaSettings, launch: Launch) -> None:
    """Over a thousand decisions replay to the byte; so do they after 20 kills -9 of the monitor."""
    writer = Writer(kafka)
    rng = random.Random()
    monitor = launch("monitor", kafka=kafka)

    async def in_peace() -> None:
        async with LogWriter(kafka) as log:
            while writer.decisions < MANY_DECISIONS:
                await writer.write(log, pause_s=0.0)
        await until_decided(kafka, writer.decisions)

    async def under_fire() -> None:
        nonlocal monitor
        async with writer.flowing(pause_s=0.05):
            for _ in range(KILLS):
                # Within its start, its recovery or its work: when must not depend on what it does.
                await asyncio.sleep(rng.random() * 5.0)
                monitor.kill()
                monitor = launch("monitor", kafka=kafka)
        await until_decided(kafka, writer.decisions)

    asyncio.run(in_peace())
    assert writer.decisions >= MANY_DECISIONS
    verify(launch, kafka, writer.decisions)
    asyncio.run(under_fire())
    verify(launch, kafka, writer.decisions)
    events = control_events(asyncio.run(as_undisturbed(kafka)))
    assert len(events) == writer.decisions
    assert events == KINDS * (len(events) // len(KINDS))


@pytest.fixture
def four_partitions(kafka: KafkaSettings) -> KafkaSettings:
    """Topics whose log has four partitions."""
    wide = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=f"{kafka.topic_prefix}wide.",
        service_partitions=4,
    )
    asyncio.run(ensure_topics(wide))
    return wide


@pytest.mark.timeout(600)
def test_many_services_over_monitors_that_come_and_go(
    four_partitions: KafkaSettings, launch: Launch
) -> None:
    """Twelve services on four partitions, one to four monitors: every story goes on undisturbed.

    Monitors join, are killed for good, stop in order and come back, while all services have
    rollouts; what was published is what one undisturbed fold of the log says, to the byte.
    """
    kafka = four_partitions
    services = [f"shop-{n}" for n in range(12)]
    writer = Writer(kafka, services)

    def join(name: str) -> Driftgate:
        return launch("monitor", "--monitor-id", name, kafka=kafka)

    async def until_working(*monitors: Driftgate) -> None:
        for one in monitors:
            await until(f"{one} folds a partition", lambda one=one: "from log offset" in one.log)

    async def run() -> None:
        async with writer.flowing(pause_s=0.2):
            first, second = join("m1"), join("m2")
            await until_working(first, second)
            # With three, one would own nothing: Faust gives each up to 4 / 3 partitions, rounded
            # up, and takes from nobody what he may keep.
            third, fourth = join("m3"), join("m4")
            await until_working(third, fourth)
            first.kill()
            assert await asyncio.to_thread(second.stop) == 0
            third.kill()
            again = join("m3")
            await until_working(again)
            assert fourth.code is None
        await until_decided(kafka, writer.decisions)

    asyncio.run(run())
    everything = asyncio.run(as_undisturbed(kafka))
    for service in services:
        events = control_events([one for one in everything if one.key == service.encode()])
        assert events
        assert events == KINDS * (len(events) // len(KINDS))
    verify(launch, kafka, writer.decisions // len(services), services[5])
