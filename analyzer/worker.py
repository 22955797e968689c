"""The analyzer worker: poll, analyse, publish, again; and say every second how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from analyzer.analysis import Analyst, Poll
from analyzer.batching import BatchSizer
from analyzer.errors import WorkerFencedError
from analyzer.faults import FaultFile
from analyzer.follower import RolloutFollower
from analyzer.kafka_backpressure import MAX_POLL_INTERVAL_MS, UnderWay, poll
from analyzer.kafka_fencing import stable_offsets
from analyzer.measure import measurement_batch
from analyzer.pipeline import Incoming
from analyzer.publish import Publisher
from analyzer.semantic import Model, SemanticEngine
from analyzer.settings import AnalyzerSettings
from analyzer.telemetry import Telemetry
from schemas.log import CacheLookups, Heartbeat, SharedCache
from schemas.prompts import Arm, SourcePosition
from schemas.rollout import RolloutState
from schemas.topics import Topic
from schemas.version import VERSION

__all__ = ["Worker", "WorkerFencedError"]

log = logging.getLogger("driftgate.analyzer")

POLL_MS = 100
"""How long a poll waits for prompts: also how soon an idle worker applies a rollback."""
SESSION_TIMEOUT_MS = 8_000
"""After so long without a heartbeat the group gives a worker's partitions to the others."""
WARM_UP_SECONDS = 60.0
"""How long a start waits for the model. The first one on a machine exports it, in 15 s; others take
2 s."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses after failed deliveries in a row; the last one repeats."""
DRAIN_SECONDS = 5.0
"""What a stop allows for the delivery of the batch under way, beside its semantic half. A batch
that is not delivered by then, because the broker is away, is read again by the next start."""
CLOSE_SECONDS = 3.0
"""For each step of leaving: a broker that is away would be waited for for ever."""


class Worker:
    """One analyzer process.

    Args:
        settings: built once.
        load: builds the model, in the model's thread.
    """

    def __init__(self, settings: AnalyzerSettings, load: Callable[[], Model]) -> None:
        self._settings = settings
        self._incarnation = uuid.uuid4().hex[:12]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            group_id=settings.group_id,
            group_instance_id=settings.worker_id if settings.static_member else None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            max_partition_fetch_bytes=8 * 2**20,
            # A fetch that waits for idle partitions keeps the busy ones waiting for so long.
            fetch_max_wait_ms=POLL_MS,
        )
        self._publisher = Publisher(settings, self._consumer)
        self._follower = RolloutFollower(settings.kafka, settings.service)
        self._engine = SemanticEngine(
            load, settings.semantic_timeout_seconds, FaultFile(settings.faults_file)
        )
        self._sizer = BatchSizer(settings.max_poll_records, settings.batch_seconds)
        self._analyst = Analyst(settings, self._engine)
        self.telemetry = Telemetry()
        self._stopping = asyncio.Event()
        self._batch = asyncio.Lock()
        """Held while a batch is polled and admitted; a rebalance waits for it."""
        self._assignments = 0
        """How often the group gave us partitions."""
        self._taken_over = -1
        """The assignment whose committed offsets we have gone to."""
        self._broken = False
        """A delivery has failed, and the producers are not fit for another."""
        self._under_way = UnderWay(self._consumer)
        """Polls that are analysed or delivered; a rebalance waits for them, too."""
        self._model = asyncio.Lock()
        """One poll at a time goes through the model."""
        self._applied: RolloutState = self._follower.state
        """What the batch under way, or the next one, is routed by."""
        self._beat = asyncio.Event()
        """Set to send a heartbeat at once."""
        self._prompts = 0
        self._failures = 0
        """Deliveries that failed in a row."""
        self._next_offsets: dict[TopicPartition, int] = {}

    @property
    def ready(self) -> bool:
        """Whether it takes prompts."""
        return self._taken_over >= 0

    def stop(self) -> None:
        """Finish the batch under way, leave the group, and return from :meth:`run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            WorkerFencedError: another process has taken this worker's id.
            aiokafka.errors.KafkaError: the broker cannot be reached at the start.
        """
        topic = self._settings.kafka.topic(Topic.PROMPTS)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._follower.start()
            self._applied = self._follower.state
            await self._publisher.start()
            await self._consumer.start()
            tasks = [
                asyncio.create_task(self._engine.keep_loaded()),
                asyncio.create_task(self._heartbeats()),
            ]
            await self._warm_up()
            # A rollout may wait for it.
            self._beat.set()
            self._consumer.subscribe([topic], listener=_Rebalance(self))
            log.info(
                "worker %s of service %s: waiting for prompts on %s, delivery %s",
                self._settings.worker_id,
                self._settings.service,
                topic,
                self._settings.delivery,
            )
            tasks.append(asyncio.create_task(self._work(tuple(tasks))))
            await self._until_stopped(tasks[-1])
        finally:
            await self._under_way.abandon()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _warm_up(self) -> None:
        """Take no prompt before the model is there: its fallbacks would count against green.

        One that cannot be had, or takes too long, is not waited for: rules serve until it comes.
        """
        events = [asyncio.create_task(e.wait()) for e in (self._engine.tried, self._stopping)]
        await asyncio.wait(events, timeout=WARM_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()

    async def _until_stopped(self, work: asyncio.Task[None]) -> None:
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            limit_s = self._settings.semantic_timeout_seconds + DRAIN_SECONDS
            await asyncio.wait({work}, timeout=limit_s)
        finally:
            stop.cancel()
        if work.done():
            work.result()
        else:
            log.warning("the batch under way cannot be delivered; the next start reads it again")

    async def _close(self) -> None:
        steps = {
            "send a last heartbeat": lambda: self._publisher.append(self.heartbeat(leaving=True)),
            "leave the group": self._consumer.stop,
            "stop publishing": self._publisher.stop,
            "stop following the rollout": self._follower.stop,
        }
        for step, done in steps.items():
            # As a task: without a broker, aiokafka's own cancelled tasks come out of its stop().
            task = asyncio.ensure_future(done())
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CLOSE_SECONDS)
            if not task.done() or task.cancelled():
                log.warning("could not %s within %g s", step, CLOSE_SECONDS)
            elif (error := task.exception()) is not None:
                log.warning("could not %s: %r", step, error)
        log.info("worker %s stopped after %d prompts", self._settings.worker_id, self._prompts)

    async def _work(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        while not self._stopping.is_set():
            self._follower.check()
            for task in tasks:
                # One that loads the model ends; one that fails must not do so unnoticed.
                if task.done():
                    task.result()
            try:
                # Held from the poll on: were a rebalance to come between the poll and the
                # delivery, it would set the position back, and the batch would be read again.
                async with self._batch:
                    await self._take_over()
                    # Before the poll: prompts had better wait in Kafka, where they make one batch.
                    await self._under_way.make_room()
                    found = await poll(self._consumer, POLL_MS, self._sizer.records)
                    if self._assignments != self._taken_over:
                        # Partitions came while we polled: not from where we must begin.
                        continue
                    # After the poll: what it brought is routed by what holds now.
                    await self._apply_rollout()
                    if found:
                        await self._handle(found)
                    elif self._under_way.has_delivered:
                        await self._under_way.first()
            except KafkaError as error:
                pause_s = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
                self._failures += 1
                self.telemetry.failed_deliveries += 1
                log.warning(
                    "the batch was not delivered and will be read again in %g s: %r",
                    pause_s,
                    error,
                )
                await self._under_way.abandon()
                self._broken = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stopping.wait()
        try:
            await self._under_way.all()
        except KafkaError as error:
            # Its offsets are not committed.
            log.warning("the last batch was not delivered and will be read again: %r", error)

    async def _take_over(self) -> None:
        """Begin where the last owner, or our last delivery that succeeded, has ended."""
        if self._broken:
            await self._publisher.renew()
            self._broken = False
            self._taken_over = -1
        assignments = self._assignments
        if self._taken_over == assignments:
            return
        partitions = self._consumer.assignment()
        if partitions:
            offsets = await stable_offsets(self._consumer, self._settings.group_id, partitions)
            for tp, offset in offsets.items():
                # Where none is committed, the beginning: an offset that retention has deleted is
                # set to the first one there is. Asking for that here would wait for the broker.
                self._consumer.seek(tp, offset or 0)
        self._taken_over = assignments

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Take note of a new assignment; called by the group's coordinator."""
        log.info("working on partitions %s", sorted(tp.partition for tp in partitions))
        self._assignments += 1

    async def _apply_rollout(self) -> None:
        """Between two batches: the state that the next one is routed by.

        It is acknowledged only when nothing that was routed by the old one is under way.
        """
        if self._follower.state is self._applied:
            return
        await self._under_way.all()
        self._applied = self._follower.state
        log.info(
            "applied rollout revision %d: %s, stage %d, green share %g",
            self._applied.revision,
            self._applied.phase,
            self._applied.stage,
            self._applied.share,
        )
        self._beat.set()

    async def _handle(self, found: dict[TopicPartition, list[Any]]) -> None:
        """Send a poll on its way; the next one may be admitted while the model has this one."""
        records = [_incoming(record) for several in found.values() for record in several]
        state = self._applied
        offsets = {tp: several[-1].offset + 1 for tp, several in found.items() if several}
        admitted = self._analyst.admit(records, state)
        self._under_way.add(self._carry(admitted, state, offsets, self._under_way.newest))

    async def _carry(
        self,
        admitted: Poll,
        state: RolloutState,
        offsets: dict[TopicPartition, int],
        before: asyncio.Task[None] | None,
    ) -> None:
        """Take a poll through the model and into Kafka, after the poll before it."""
        async with self._model:
            if state is not self._follower.state:
                # Nothing of it is computed yet: a rollback need not wait for that.
                state = self._follower.state
                admitted = self._analyst.admit_again(admitted, state)
            started = time.perf_counter()
            results, rows = await self._analyst.finish(admitted, lag_messages=self._lag())
            seconds = admitted.rules_seconds + time.perf_counter() - started
            self._sizer.update(len(rows), seconds)
        measured = measurement_batch(
            rows,
            state,
            worker_id=self._settings.worker_id,
            incarnation=self._incarnation,
            source_topic=self._settings.kafka.topic(Topic.PROMPTS),
        )
        if before is not None:
            # One that fails takes those behind it with it: offsets are committed in order.
            await before
        await self._publisher.deliver(results, measured, offsets)
        self._failures = 0
        self._next_offsets |= offsets
        self._prompts += len(results)
        self.telemetry.take((result.event for result in results), measured)

    async def settle(self) -> None:
        """Finish what is under way, so that its partitions may go to somebody else.

        Whether it was delivered is for :meth:`_work` to find: an error would be lost here.
        """
        async with self._batch:
            await self._under_way.settle()
            # What others do there from now on is no lag of ours, should partitions come back.
            self._next_offsets.clear()

    async def _heartbeats(self) -> None:
        while True:
            self._beat.clear()
            self.telemetry.beats += 1
            try:
                await self._publisher.append(self.heartbeat())
            except KafkaError as error:
                log.warning("no heartbeat could be sent: %r", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat_seconds):
                    await self._beat.wait()

    def heartbeat(self, *, leaving: bool = False) -> Heartbeat:
        """How the worker is now; may be asked for by another thread."""
        process = psutil.Process(os.getpid())
        cpu = process.cpu_times()
        model = self._engine.model
        lookups = {
            arm: CacheLookups(hits=counts["hit"], misses=counts["miss"])
            for arm, counts in self.telemetry.cache.items()
        }
        return Heartbeat(
            service=self._settings.service,
            worker_id=self._settings.worker_id,
            incarnation=self._incarnation,
            version=VERSION,
            applied_revision=self._applied.revision,
            interval_ms=round(self._settings.heartbeat_seconds * 1000),
            model=self._engine.state,
            encoder=model.encoder.name if model else "",
            rss_bytes=process.memory_info().rss,
            cpu_seconds=cpu.user + cpu.system,
            lag_messages=self._lag(),
            cache_entries=len(model.cache) if model else 0,
            cache_hits=model.cache.hits if model else 0,
            cache_misses=model.cache.misses if model else 0,
            cache_evictions=model.cache.evictions if model else 0,
            cache_control=lookups[Arm.CONTROL],
            cache_candidate=lookups[Arm.CANDIDATE],
            shared_cache=model.cache.shared if model else SharedCache(),
            prompts=self._prompts,
            leaving=leaving,
        )

    def _lag(self) -> int:
        """Committed prompts that were not handled yet, as far as the last fetches know."""
        lag = 0
        for tp in self._consumer.assignment():
            end = self._consumer.last_stable_offset(tp)
            if end is not None and tp in self._next_offsets:
                lag += max(end - self._next_offsets[tp], 0)
        return lag


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped here
    """Lets the batch under way finish before its partitions go to somebody else."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._worker.settle()
            log.info("giving up %d partitions", len(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._worker.assigned(assigned)


def _incoming(record: Any) -> Incoming:
    return Incoming(
        SourcePosition(record.topic, record.partition, record.offset),
        record.timestamp,
        record.key,
        record.value,
    )
