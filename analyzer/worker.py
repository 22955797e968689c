"""The analyzer worker: poll, analyse, publish, again; and say every second how it is."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from analyzer.errors import AnalyzerError
from analyzer.faults import FaultFile
from analyzer.follower import RolloutFollower
from analyzer.measure import Row, measurement_batch, rejected_row, result_row
from analyzer.pipeline import (
    Accepted,
    Incoming,
    Refused,
    Semantic,
    admit,
    enriched,
    rejected,
)
from analyzer.publish import Publisher, Result
from analyzer.semantic import Model, SemanticEngine, SemanticFailure
from analyzer.settings import AnalyzerSettings
from schemas.log import Heartbeat
from schemas.prompts import SourcePosition
from schemas.rollout import RolloutState
from schemas.topics import Topic
from schemas.version import VERSION

__all__ = ["Worker", "WorkerFencedError"]

log = logging.getLogger("driftgate.analyzer")

POLL_MS = 100
"""How long a poll waits for prompts: also how soon an idle worker applies a rollback."""
SESSION_TIMEOUT_MS = 8_000
"""After so long without a heartbeat the group gives a worker's partitions to the others."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses after failed deliveries in a row; the last one repeats."""


class WorkerFencedError(AnalyzerError):
    """Another process runs under the same worker id."""


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
            max_partition_fetch_bytes=8 * 2**20,
        )
        self._publisher = Publisher(settings, self._consumer)
        self._follower = RolloutFollower(settings.kafka, settings.service)
        self._engine = SemanticEngine(
            load, settings.semantic_timeout_seconds, FaultFile(settings.faults_file)
        )
        self._stopping = asyncio.Event()
        self._batch = asyncio.Lock()
        """Held while a batch is under way; a rebalance waits for it."""
        self._applied: RolloutState = self._follower.state
        """What the batch under way, or the next one, is routed by."""
        self._beat = asyncio.Event()
        """Set to send a heartbeat at once."""
        self._prompts = 0
        self._next_offsets: dict[TopicPartition, int] = {}

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
            self._consumer.subscribe([topic], listener=_Rebalance(self._batch))
            log.info(
                "worker %s of service %s: waiting for prompts on %s, delivery %s",
                self._settings.worker_id,
                self._settings.service,
                topic,
                self._settings.delivery,
            )
            await self._work(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _close(self) -> None:
        try:
            await self._publisher.append(self._heartbeat(leaving=True))
        except (KafkaError, AssertionError) as error:
            log.warning("no last heartbeat could be sent: %r", error)
        await self._consumer.stop()
        await self._publisher.stop()
        await self._follower.stop()
        log.info("worker %s stopped after %d prompts", self._settings.worker_id, self._prompts)

    async def _work(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._follower.check()
            for task in tasks:
                # One that loads the model ends; one that fails must not do so unnoticed.
                if task.done():
                    task.result()
            self._apply_rollout()
            try:
                # Held from the poll on: were a rebalance to come between the poll and the
                # delivery, it would set the position back, and the batch would be read again.
                async with self._batch:
                    found = await self._consumer.getmany(
                        timeout_ms=POLL_MS, max_records=self._settings.max_poll_records
                    )
                    if found:
                        await self._handle(found)
                failures = 0
            except (ProducerFenced, InvalidProducerEpoch) as error:
                raise WorkerFencedError(
                    f"another process runs as worker {self._settings.worker_id!r}: stop one of "
                    "them, or give each its own id (DRIFTGATE_WORKER_ID)"
                ) from error
            except KafkaError as error:
                pause_s = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                log.warning(
                    "the batch was not delivered and will be read again in %g s: %r",
                    pause_s,
                    error,
                )
                await asyncio.sleep(pause_s)
                await self._rewind()

    async def _rewind(self) -> None:
        try:
            await self._consumer.seek_to_committed()
        except KafkaError as error:
            log.warning("the committed offsets cannot be read yet: %r", error)

    def _apply_rollout(self) -> None:
        """Between two batches: the state that the next one is routed by."""
        if self._follower.state is self._applied:
            return
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
        records = [_incoming(record) for several in found.values() for record in several]
        state = self._applied
        offsets = {tp: several[-1].offset + 1 for tp, several in found.items() if several}
        results, rows = await self._analyse(records, state)
        await self._publisher.deliver(
            results,
            measurement_batch(
                rows,
                state,
                worker_id=self._settings.worker_id,
                incarnation=self._incarnation,
                source_topic=self._settings.kafka.topic(Topic.PROMPTS),
            ),
            offsets,
        )
        self._next_offsets |= offsets
        self._prompts += len(records)

    async def _analyse(
        self, records: Sequence[Incoming], state: RolloutState
    ) -> tuple[list[Result], list[Row]]:
        polled = time.perf_counter()
        admitted = [admit(record, state, self._settings.limits) for record in records]
        rules_seconds = time.perf_counter() - polled
        semantic = await self._score([a for a in admitted if isinstance(a, Accepted)])
        semantic_done = time.perf_counter() - polled
        results, rows = [], []
        now_ms = time.time_ns() // 1_000_000
        who = {"service": self._settings.service, "worker_id": self._settings.worker_id}
        for one in admitted:
            if isinstance(one, Refused):
                event: Any = rejected(one, **who)
                rows.append(rejected_row(one.incoming, one.code))
            else:
                found = semantic.get(one.incoming.source)
                # What it took for this prompt's own path: rules alone do not wait for the model.
                seconds = rules_seconds if found is None else semantic_done
                event = enriched(
                    one,
                    found,
                    rules_seconds=rules_seconds,
                    processing_seconds=seconds,
                    **who,
                )
                rows.append(result_row(one, found, seconds))
            results.append(Result(event, one.incoming.key, now_ms))
        return results, rows

    async def _score(self, accepted: Sequence[Accepted]) -> dict[SourcePosition, Semantic]:
        """The semantic half of every prompt that wants it, a deployment at a time."""
        found: dict[SourcePosition, Semantic] = {}
        wanting = [one for one in accepted if one.semantic_wanted]
        for name in dict.fromkeys(one.measured.name for one in wanting):
            batch = [one for one in wanting if one.measured.name == name]
            started = time.perf_counter()
            try:
                result = await self._engine.score(name, [one.prompt for one in batch])
            except SemanticFailure as failure:
                log.warning("%d prompts fall back to rules: %s", len(batch), failure)
                seconds = time.perf_counter() - started
                several = [Semantic(None, failure.reason, seconds, seconds)] * len(batch)
            else:
                several = [
                    Semantic(scores, None, result.embed_seconds, result.semantic_seconds)
                    for scores in result.scores
                ]
            found |= {
                one.incoming.source: semantic for one, semantic in zip(batch, several, strict=True)
            }
        return found

    async def _heartbeats(self) -> None:
        while True:
            self._beat.clear()
            try:
                await self._publisher.append(self._heartbeat())
            except KafkaError as error:
                log.warning("no heartbeat could be sent: %r", error)
            try:
                async with asyncio.timeout(self._settings.heartbeat_seconds):
                    await self._beat.wait()
            except TimeoutError:
                pass

    def _heartbeat(self, *, leaving: bool = False) -> Heartbeat:
        process = psutil.Process(os.getpid())
        cpu = process.cpu_times()
        model = self._engine.model
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

    def __init__(self, batch: asyncio.Lock) -> None:
        self._batch = batch

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            async with self._batch:
                log.info("giving up %d partitions", len(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("working on partitions %s", sorted(tp.partition for tp in assigned))


def _incoming(record: Any) -> Incoming:
    return Incoming(
        SourcePosition(record.topic, record.partition, record.offset),
        record.timestamp,
        record.key,
        record.value,
    )
