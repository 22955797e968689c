"""A consumer group of the tracker: what comes first, what must wait for it, and the offsets.

Offsets are committed when MLflow has what they stand for. Topics that speak of what stands in
others (feedback of results, windows of rollouts) are held back until all is taken that was in
those when they were read: then whatever they speak of is in MLflow, or never will be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from aiokafka.errors import KafkaError

from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.tracking.telemetry import TrackerTelemetry

__all__ = ["Handler", "Lane"]

log = logging.getLogger("driftgate.tracker")

Handler = Callable[[Sequence[Any]], Awaitable[bool]]
"""Takes records, in order within a partition; False when it was stopped before it could."""

POLL_MS = 200
MAX_RECORDS = 500
"""A poll: a kill repeats no more than that."""
SESSION_TIMEOUT_MS = 6_000
"""After so long without a heartbeat the group turns to another tracker, if there is one. Also how
long one that is started after a kill -9 waits."""
PATIENCE_MS = 2**31 - 1
"""Between two polls: MLflow may be away for days, and the tracker stays in its group."""
PAUSE_SECONDS = 2.0
"""After Kafka has failed."""
LAG_SECONDS = 2.0
"""Between two looks at how much there is."""
CLOSE_SECONDS = 3.0
"""For leaving the group: aiokafka would wait for ever for a broker that is away."""


class Lane:
    """Reads topics and hands them on, one poll after the other.

    Args:
        kafka: where.
        name: of the group, after `driftgate-tracker-`.
        first: topics that are taken as they come.
        then: topics that speak of what stands in those.
        handle: takes records of either, never of both at once.
        stopping: set to end.
        telemetry: is told of lag and life.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        name: str,
        first: Sequence[Topic],
        then: Sequence[Topic],
        handle: Handler,
        stopping: asyncio.Event,
        telemetry: TrackerTelemetry,
    ) -> None:
        self._topics = {kafka.topic(topic): topic for topic in (*first, *then)}
        self._then = {kafka.topic(topic) for topic in then}
        self._name = name
        self._handle = handle
        self._stopping = stopping
        self._telemetry = telemetry
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=f"{kafka.topic_prefix}driftgate-tracker-{name}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(_AllToOne,),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            max_poll_interval_ms=PATIENCE_MS,
            fetch_max_wait_ms=POLL_MS,
        )
        self._held: dict[TopicPartition, list[Any]] = {}
        """Records that must wait."""
        self._barrier: Mapping[TopicPartition, int] | None = None
        """Ends of the first topics, when what is held was read."""
        self._done: dict[TopicPartition, int] = {}
        """The next offset that is not taken."""

    async def run(self) -> None:
        """Read until told to stop.

        Raises:
            aiokafka.errors.KafkaError: the broker cannot be reached at the start.
        """
        await self._consumer.start()
        self._consumer.subscribe(list(self._topics), listener=_Assigned(self))
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch_lag())
                await self._work()
                watch.cancel()
        finally:
            self._telemetry.joined.discard(self._name)
            await self._close()

    async def _work(self) -> None:
        while not self._stopping.is_set():
            self._telemetry.turns += 1
            try:
                await self._turn()
            except KafkaError as error:
                # A commit that came too late, or a broker that is away: what is not committed is
                # read again, and written again over itself.
                log.warning("%s: Kafka: %r", self._name, error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._stopping.wait()

    async def _turn(self) -> None:
        found: dict[TopicPartition, list[Any]] = await self._consumer.getmany(
            timeout_ms=POLL_MS, max_records=MAX_RECORDS
        )
        first = {tp: records for tp, records in found.items() if tp.topic not in self._then}
        later = {tp: records for tp, records in found.items() if tp.topic in self._then}
        for tp, records in found.items():
            # Before MLflow is asked: it may be away by now.
            self._done.setdefault(tp, records[0].offset)
        if later:
            self._hold(later)
        if not await self._take(first):
            return
        if self._held and await self._caught_up() and await self._take(self._held):
            self._release()
        for tp in self._consumer.assignment() - self._held.keys():
            self._done[tp] = await self._consumer.position(tp)

    async def _take(self, found: Mapping[TopicPartition, list[Any]]) -> bool:
        """Whether records are taken and committed; not when it is to end."""
        records = [record for several in found.values() for record in several]
        if not records:
            return True
        if not await self._handle(records):
            return False
        # Positions, which are beyond the markers of transactions too.
        await self._consumer.commit({tp: await self._consumer.position(tp) for tp in found})
        return True

    def _hold(self, later: dict[TopicPartition, list[Any]]) -> None:
        """Keep records, and read no more of their like until these are taken."""
        for tp, records in later.items():
            self._held.setdefault(tp, []).extend(records)
        self._consumer.pause(*self._owned(self._then))
        self._barrier = None

    def _release(self) -> None:
        self._held = {}
        self._barrier = None
        self._consumer.resume(*self._owned(self._then))

    async def _caught_up(self) -> bool:
        """Whether all is taken that stood in the first topics when what is held was read."""
        if self._barrier is None:
            first = self._owned(self._topics.keys() - self._then)
            self._barrier = await self._consumer.end_offsets(first)
        for tp, end in self._barrier.items():
            if await self._consumer.position(tp) < end:
                return False
        return True

    def _owned(self, topics: Iterable[str]) -> list[TopicPartition]:
        wanted = set(topics)
        return sorted(tp for tp in self._consumer.assignment() if tp.topic in wanted)

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Begin anew with what is committed; called by the group's coordinator."""
        self._held = {}
        self._barrier = None
        self._done = {}
        for topic in self._topics.values():
            self._telemetry.lag.pop(topic, None)
        self._telemetry.joined.add(self._name)
        if partitions:
            log.info("%s: reading %d partitions", self._name, len(partitions))
        else:
            log.info("%s: another tracker is at work; this one stands by", self._name)

    async def _watch_lag(self) -> None:
        """Say how much is still to be taken, also while MLflow does not take it."""
        while True:
            done = {tp: at for tp, at in self._done.items() if tp in self._consumer.assignment()}
            try:
                ends = await self._consumer.end_offsets(list(done)) if done else {}
            except KafkaError as error:
                log.debug("%s: no ends: %r", self._name, error)
                ends = {}
            lag: dict[Topic, int] = {}
            for tp, end in ends.items():
                topic = self._topics[tp.topic]
                lag[topic] = lag.get(topic, 0) + max(end - done[tp], 0)
            self._telemetry.lag |= lag
            await asyncio.sleep(LAG_SECONDS)

    async def _close(self) -> None:
        # As a task: without a broker, aiokafka's own cancelled tasks come out of its stop().
        task = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)
            log.warning("%s: could not leave the group within %g s", self._name, CLOSE_SECONDS)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s: could not leave the group: %r", self._name, error)


class _AllToOne(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped here
    """Gives everything to one member; the others stand by.

    What a piece of feedback is about may be in any partition: one process must have seen it.
    """

    name = "driftgate-all-to-one"
    version = 0

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        chosen = min(members)
        topics = sorted(set(members[chosen].subscription))
        everything = [(t, sorted(cluster.partitions_for_topic(t) or ())) for t in topics]
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version, everything if member == chosen else [], b""
            )
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is remembered."""


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped here
    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing: what is under way is committed or not, and is the same when done again."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._lane.assigned(assigned)
