"""A curator's work from one connection to Kafka to the next.

Everything here follows from the topics, so a failure is not mended in place: the session ends, and
the next one begins as a new process would.

**Each piece of feedback is counted once.** Batches are delivered into the log before their offsets
are committed, and begin at what was committed or delivered before: so within a source partition
nothing is ever appended before what precedes it, and the monitor drops what it has counted
(`streams/dedupe.py`). That holds for a session that goes on after its partitions were given away,
too: it appends what its successor appends as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from analyzer.casebook import Casebook
from analyzer.curator_settings import CuratorSettings
from analyzer.curator_telemetry import CuratorTelemetry
from analyzer.drift_alarms import DriftAlarms
from analyzer.feedback import feedback_batches
from analyzer.feedback_queue import FeedbackQueue, FeedbackRecord, Judged
from analyzer.kafka_followed import Followed, ServiceDirectory
from analyzer.kafka_outbox import Outbox
from analyzer.kafka_served import ServedReader
from analyzer.lanes import Lanes
from analyzer.served import ServedTable, served
from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase
from schemas.prompts import PromptEnriched, SourcePosition
from schemas.topics import Topic

__all__ = ["CuratorSession"]

log = logging.getLogger("driftgate.curator")

POLL_MS = 100
"""How long a poll waits for records: also how late feedback is at most."""
POLL_LIMIT_SECONDS = 1.0
"""A poll waits for the end of a rebalance, and that for the poll: one of them must give in."""
SESSION_TIMEOUT_MS = 6_000
"""After so long without a heartbeat the group gives a curator's partitions to the others. Also how
long one that is started after a kill -9 waits for its partitions."""
REBALANCE_TIMEOUT_MS = 30_000
"""How long the group waits for a member that is busy: longer than a turn."""
TURN_SECONDS = 20.0
"""For all that follows a poll. A turn takes milliseconds; only a broker that is away takes it so
long, and aiokafka would wait for that for ever."""
TABLE_SECONDS = 1.0
"""Of a turn for the table; it goes on with the next one."""
CLOSE_SECONDS = 3.0
"""For leaving, and as long again for giving that up: aiokafka would wait for ever for a broker that
is away."""
_POLL_RECORDS = 1_000
_ROWS = 4_000
"""Pieces of feedback a turn: 22 bytes each in a batch, far below the megabyte of a record."""


class CuratorSession:
    """Joins feedback to what was served, and picks cases, until told to stop.

    Args:
        settings: of the process.
        telemetry: of the process.
        stopping: set to end after the turn under way.
    """

    def __init__(
        self, settings: CuratorSettings, telemetry: CuratorTelemetry, stopping: asyncio.Event
    ) -> None:
        kafka = settings.kafka
        source = f"/driftgate/curator/{settings.curator_id}"
        self._settings = settings
        self._telemetry = telemetry
        self._stopping = stopping
        self._feedback = kafka.topic(Topic.FEEDBACK)
        self._enriched = kafka.topic(Topic.ENRICHED)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=settings.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            fetch_max_wait_ms=POLL_MS,
        )
        self._queue = FeedbackQueue(settings.waiting, settings.late_seconds)
        self._table = ServedTable(settings.events, settings.event_seconds, settings.late_seconds)
        self._reader = ServedReader(
            kafka,
            self._table,
            entries=settings.events,
            seconds=settings.event_seconds,
            late_seconds=settings.late_seconds,
        )
        self._alarms = DriftAlarms()
        self._book = Casebook(settings.curation.remembered)
        self._followed = Followed(
            kafka,
            self._alarms,
            self._book,
            remembered=settings.curation.remembered,
            source=source,
        )
        self._directory = ServiceDirectory(kafka)
        self._outbox = Outbox(kafka, source)
        self._lanes: Lanes[TopicPartition] = Lanes(
            settings.curation, self._book, self._alarms, telemetry.passed_over
        )
        self._turn_lock = asyncio.Lock()
        """Held while a turn lasts; a rebalance waits for it."""
        self._handled: dict[TopicPartition, int] = {}
        """The next offset that is not judged yet, of feedback."""
        self._committed: dict[TopicPartition, int] = {}
        self._last_ms: dict[TopicPartition, int] = {}
        """The broker's time of the last record read."""
        self._more = False
        """Whether the next turn has feedback to judge, also when nothing new comes."""

    async def run(self) -> None:
        """Work until told to stop.

        Raises:
            aiokafka.errors.KafkaError: the broker does not take part any more.
            TimeoutError: the same, without a word.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._outbox.start()
                await self._reader.start()
                await self._followed.start()
                await self._consumer.start()
            self._consumer.subscribe([self._feedback, self._enriched], listener=_Rebalance(self))
            log.info("curator %s: waiting for feedback on %s and results on %s",
                     self._settings.curator_id, self._feedback, self._enriched)  # fmt: skip
            while not self._stopping.is_set():
                self._telemetry.turns += 1
                # A rebalance must not come between a poll and the commit: what was read would be
                # read again, by us or by others.
                async with self._turn_lock:
                    found = await self._poll()
                    async with asyncio.timeout(TURN_SECONDS):
                        await self._turn(found)
        finally:
            self._telemetry.ready = False
            await self._close()

    async def _close(self) -> None:
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "leave the group": self._consumer.stop,
            "stop publishing": self._outbox.stop,
            "stop reading what was served": self._reader.stop,
            "stop following": self._followed.stop,
        }
        # As tasks: without a broker, aiokafka's own cancelled tasks come out of its stop().
        tasks = {asyncio.ensure_future(done()): step for step, done in steps.items()}
        _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CLOSE_SECONDS)
        for task, step in tasks.items():
            if not task.done() or task.cancelled():
                log.warning("could not %s within %g s", step, CLOSE_SECONDS)
            elif (error := task.exception()) is not None:
                log.warning("could not %s: %r", step, error)

    def _owned(self, topic: str) -> list[TopicPartition]:
        return sorted(tp for tp in self._consumer.assignment() if tp.topic == topic)

    async def _poll(self) -> dict[TopicPartition, list[Any]]:
        feedback = [tp for tp in self._owned(self._feedback)
                    if not self._queue.is_full(tp.partition)]  # fmt: skip
        wanted = feedback + self._owned(self._enriched)
        if not wanted and self._consumer.assignment():
            # All is full; without partitions, all of them would be read.
            await asyncio.sleep(POLL_MS / 1000)
            return {}
        try:
            async with asyncio.timeout(POLL_LIMIT_SECONDS):
                found: dict[TopicPartition, list[Any]] = await self._consumer.getmany(
                    *wanted, timeout_ms=0 if self._more else POLL_MS, max_records=_POLL_RECORDS
                )
        except TimeoutError:
            return {}
        return found

    async def _turn(self, found: dict[TopicPartition, list[Any]]) -> None:
        cases = self._take(found)
        cases += await self._followed.poll()
        judged = await self._judge()
        for accepted in judged.accepted:
            partition = accepted.attributed.source.partition
            cases += self._lanes.hear(TopicPartition(self._feedback, partition), accepted)
        cases += self._lanes.close_idle(time.monotonic())
        batches = feedback_batches([each.attributed for each in judged.accepted])
        await self._outbox.deliver(batches, judged.rejected, cases)
        for partition, offset in judged.next_offsets.items():
            self._handled[TopicPartition(self._feedback, partition)] = offset
        positions = {tp: await self._consumer.position(tp) for tp in self._consumer.assignment()}
        await self._commit(positions)
        self._telemetry.take(judged.accepted, judged.rejected, cases)
        self._tell(positions)
        _log_outcome(judged, cases)

    def _take(self, found: dict[TopicPartition, list[Any]]) -> list[CuratedCase]:
        """Sort records in; the cases of windows that are over with them."""
        now_s = time.monotonic()
        cases = []
        for tp, records in found.items():
            for record in records:
                if tp.topic == self._feedback:
                    source = SourcePosition(tp.topic, tp.partition, record.offset)
                    self._queue.add(
                        FeedbackRecord(source, record.timestamp, record.key, record.value), now_s
                    )
                else:
                    cases += self._see(tp, record, now_s)
            self._last_ms[tp] = records[-1].timestamp
        return cases

    def _see(self, tp: TopicPartition, record: Any, now_s: float) -> list[CuratedCase]:
        try:
            event = cloudevents.decode_json(record.value, PromptEnriched)
        except DecodeError:
            # The reader of the table says so.
            self._telemetry.undecodable[Topic.ENRICHED] += 1
            return []
        return self._lanes.see(tp, served(event, record.timestamp), record.offset, now_s)

    async def _judge(self) -> Judged:
        owned = self._owned(self._feedback)
        horizon = await self._horizon(owned)
        if horizon is None:
            return Judged([], [], {})
        (oldest_ms,) = horizon
        reach = await self._reader.advance(oldest_ms, TABLE_SECONDS)
        if reach is None:
            return Judged([], [], {})
        self._telemetry.ready = True
        if self._queue.services() - self._known_services():
            await self._directory.refresh()
        most = _ROWS // max(len(owned), 1)
        judged = self._queue.judge(
            self._table, reach, self._known_services(), now_s=time.monotonic(), most=most
        )
        self._more = bool(judged.next_offsets) and len(self._queue) > 0
        return judged

    def _known_services(self) -> set[str]:
        return self._table.services | self._directory.services

    async def _horizon(self, owned: list[TopicPartition]) -> tuple[int | None] | None:
        """The broker's time of the oldest feedback that waits here or is still to be read.

        Returns:
            It, or (None,) where there is none; None while that is not known.
        """
        if not self._consumer.assignment():
            return None
        times: list[int] = []
        for tp in owned:
            oldest_ms = self._queue.oldest_ms(tp.partition)
            if oldest_ms is None:
                end = self._consumer.last_stable_offset(tp)
                if end is None:
                    return None
                if await self._consumer.position(tp) >= end:
                    continue
                # Not earlier than the one before it.
                oldest_ms = self._last_ms.get(tp)
                if oldest_ms is None:
                    return None
            times.append(oldest_ms)
        return (min(times, default=None),)

    async def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        offsets = self._handled | self._lanes.next_offsets(positions.items())
        fresh = {tp: at for tp, at in offsets.items() if self._committed.get(tp) != at}
        if fresh:
            await self._consumer.commit(fresh)
            self._committed |= fresh

    def _tell(self, positions: Mapping[TopicPartition, int]) -> None:
        lag = {self._feedback: len(self._queue), self._enriched: 0}
        for tp, position in positions.items():
            lag[tp.topic] += max((self._consumer.last_stable_offset(tp) or 0) - position, 0)
        self._telemetry.lag = {
            str(Topic.FEEDBACK): lag[self._feedback],
            str(Topic.ENRICHED): lag[self._enriched],
        }
        self._telemetry.waiting = len(self._queue)
        self._telemetry.remembered = len(self._table)

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Take note of what the group gave us; called by its coordinator."""
        if partitions:
            names = (f"{tp.topic}/{tp.partition}" for tp in sorted(partitions))
            log.info("working on %s", ", ".join(names))
        else:
            # It is up, and takes over when another one leaves.
            self._telemetry.ready = True
            log.info("a spare: there are more curators than partitions")

    async def settle(self) -> None:
        """Finish the turn under way, and forget what was read: it may go to somebody else."""
        async with self._turn_lock:
            self._queue.clear()
            self._lanes.clear()
            for state in (self._handled, self._committed, self._last_ms):
                state.clear()


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped here
    def __init__(self, session: CuratorSession) -> None:
        self._session = session

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._session.settle()
        if revoked:
            log.info("giving up %d partitions", len(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._session.assigned(assigned)


def _log_outcome(judged: Judged, cases: Sequence[CuratedCase]) -> None:
    refused = Counter(str(each.letter.code) for each in judged.rejected)
    if refused:
        log.warning(
            "feedback was refused, see %s: %s",
            Topic.FEEDBACK_REJECTED,
            ", ".join(f"{code} {count}" for code, count in sorted(refused.items())),
        )
    for case in cases:
        about = {"service": case.service, "event_id": case.id}
        if case.rollout_id:
            about["correlationid"] = case.rollout_id
        log.info("case %s of %s: %s", case.id, case.service, ", ".join(case.reasons), extra=about)
