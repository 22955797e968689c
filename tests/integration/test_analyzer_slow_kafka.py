"""A Kafka that is slow or stands still makes a worker wait, and neither grow nor lose anything.

The broker is slowed down here, so it is one of these tests' own.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import analyzer.kafka_backpressure as backpressure
import analyzer.worker
from analyzer.kafka_backpressure import MAX_UNDER_WAY
from analyzer.settings import Delivery
from analyzer.worker import Worker
from driftgate.broker import EmbeddedKafka
from driftgate.topics import ensure_topics
from schemas.settings import KafkaSettings
from tests.support.proxy import SlowKafka
from tests.support.topics import measured, prompt, submit, wait_for_outcome
from tests.support.workers import settings_of, until, working

FREEZE_S = 12.0
"""Longer than a member's session (8 s) and a transaction (10 s)."""


def own(servers: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=servers, prompt_partitions=2, service_partitions=1)


class Watch:
    """What a worker held at most, looked at all the time."""

    def __init__(self, worker: Worker) -> None:
        self.under_way = 0
        self.paused = 0
        self.fetched_while_paused = 0
        self._worker = worker
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        consumer = self._worker._consumer
        before: frozenset[object] = frozenset()
        while True:
            self.under_way = max(self.under_way, len(self._worker._under_way))
            paused = frozenset(consumer.paused())
            self.paused = max(self.paused, len(paused))
            # What was fetched ahead is given up with the first poll after the pause.
            if paused and paused == before:
                held = len(set(consumer._fetcher._records) & paused)
                self.fetched_while_paused = max(self.fetched_while_paused, held)
            before = paused
            await asyncio.sleep(0.3)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("delivery", list(Delivery))
async def test_slow_deliveries_hold_the_worker_back(
    monkeypatch: pytest.MonkeyPatch, delivery: Delivery
) -> None:
    """Each takes longer than a worker may go without a poll: it stays in its group all the same.

    Two polls are under way at most, and meanwhile the partitions are paused.
    """
    monkeypatch.setattr(analyzer.worker, "MAX_POLL_INTERVAL_MS", 2_500)
    monkeypatch.setattr(backpressure, "PAUSE_AFTER_SECONDS", 0.5)
    monkeypatch.setattr(backpressure, "PAUSED_POLL_SECONDS", 0.2)
    async with SlowKafka() as slow:
        kafka = own(slow.bootstrap_servers)
        await ensure_topics(kafka)
        settings = settings_of(kafka, max_poll_records=8, delivery=delivery)
        async with working(settings) as worker:
            first = await submit(kafka, [prompt(f"Explain subject {n} to me") for n in range(4)])
            await wait_for_outcome(kafka, len(first))
            assignments = worker._assignments
            watch = Watch(worker)
            sent = await submit(kafka, [prompt(f"Explain topic {n} to me") for n in range(48)])
            # A transaction is five requests, one after the other; without one, two.
            slow.delay_s = 0.8 if delivery is Delivery.EXACTLY_ONCE else 2.0
            await until("it is held back", lambda: watch.paused)
            before = worker._prompts
            await until("three slow deliveries", lambda: worker._prompts >= before + 24)
            slow.delay_s = 0.0
            found = await wait_for_outcome(kafka, len(first) + len(sent))
            await until("it takes more", lambda: not worker._consumer.paused())
            await watch.end()
            assert worker._assignments == assignments, "the group has lost it"
            assert worker.telemetry.failed_deliveries == 0
        rows = await measured(kafka)
    assert watch.under_way <= MAX_UNDER_WAY
    assert watch.paused == 2
    assert watch.fetched_while_paused == 0
    sent += first
    assert found.positions == sorted(sent)
    assert rows.positions == sorted((one.partition, one.offset) for one in sent)


async def test_a_broker_that_freezes_loses_and_repeats_nothing() -> None:
    """For longer than sessions and transactions last; then the worker goes on by itself."""
    broker = EmbeddedKafka()
    await asyncio.to_thread(broker.start)
    try:
        kafka = own(broker.bootstrap_servers)
        await ensure_topics(kafka)
        sent = await submit(kafka, [prompt(f"Explain topic {n} to me") for n in range(400)])
        async with working(settings_of(kafka, max_poll_records=3)) as worker:
            await until("it works", lambda: worker._prompts > 10)
            watch = Watch(worker)
            await freeze(broker)
            assert worker._prompts < len(sent)
            sent += await submit(kafka, [prompt(f"Explain topic {n} again") for n in range(20)])
            found = await wait_for_outcome(kafka, len(sent), within_s=120)
            await watch.end()
        rows = await measured(kafka)
    finally:
        await asyncio.to_thread(broker.stop)
    assert watch.under_way <= MAX_UNDER_WAY
    assert found.positions == sorted(sent)
    assert rows.positions == sorted((one.partition, one.offset) for one in sent)


async def freeze(broker: EmbeddedKafka) -> None:
    """Stop the broker's process, and let it go on after a while."""
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(FREEZE_S)
    finally:
        os.kill(pid, signal.SIGCONT)
