"""Polls on their way into Kafka: few, in order, and no more while Kafka is slow.

Each holds its prompts and results in memory, so there are at most :data:`MAX_UNDER_WAY`. When the
oldest takes long, the partitions are paused: what was fetched ahead is given up, and nothing more
is fetched. Polls go on, and bring nothing. aiokafka 0.14 takes a consumer that has not polled for
``max_poll_interval_ms`` for hung: its heartbeat leaves the group, so that the delivery would be
fenced and all of it done again by others, whom Kafka serves no faster.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["MAX_POLL_INTERVAL_MS", "MAX_UNDER_WAY", "UnderWay", "poll"]

log = logging.getLogger("driftgate.analyzer")

MAX_UNDER_WAY = 2
"""Polls beside the one that is being admitted: one in the model, one on its way into Kafka. More
would only wait, and be lost with a failed delivery."""
MAX_POLL_INTERVAL_MS = 300_000
"""Between two polls, or the worker leaves its group: Kafka's default."""
PAUSE_AFTER_SECONDS = 5.0
"""How long the oldest poll is waited for before the partitions are paused. A delivery takes 30 ms,
and what is fetched ahead is worth keeping for it; a thirtieth of the interval is far from leaving
the group, on a machine that is busy, too."""
PAUSED_POLL_SECONDS = 1.0
"""Between two polls meanwhile."""
POLL_LIMIT_SECONDS = 1.0
"""A poll waits for the end of a rebalance, and that for the poll: one of them must give in."""


async def poll(
    consumer: AIOKafkaConsumer, timeout_ms: int, max_records: int | None = None
) -> dict[TopicPartition, list[Any]]:
    """What the consumer has; nothing while the group is being rebalanced.

    Args:
        consumer: of a group.
        timeout_ms: for records to come.
        max_records: the most to take.
    """
    try:
        async with asyncio.timeout(POLL_LIMIT_SECONDS):
            found: dict[TopicPartition, list[Any]] = await consumer.getmany(
                timeout_ms=timeout_ms, max_records=max_records
            )
    except TimeoutError:
        return {}
    return found


class UnderWay:
    """The polls of a worker that are analysed or delivered.

    Args:
        consumer: that they came from.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._tasks: deque[asyncio.Task[None]] = deque()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def newest(self) -> asyncio.Task[None] | None:
        """The poll that was added last, while it is under way."""
        return self._tasks[-1] if self._tasks else None

    @property
    def has_delivered(self) -> bool:
        """Whether the oldest poll has come to its end."""
        return bool(self._tasks) and self._tasks[0].done()

    def add(self, carry: Coroutine[Any, Any, None]) -> None:
        """Send a poll on its way."""
        self._tasks.append(asyncio.create_task(carry))

    async def make_room(self) -> None:
        """Wait until one more may be under way.

        Raises:
            aiokafka.errors.KafkaError: one was not delivered.
        """
        while len(self._tasks) >= MAX_UNDER_WAY:
            await self.first()

    async def first(self) -> None:
        """Wait until the oldest is delivered.

        Raises:
            aiokafka.errors.KafkaError: it was not.
        """
        oldest = self._tasks[0]
        await asyncio.wait({oldest}, timeout=PAUSE_AFTER_SECONDS)
        if not oldest.done():
            await self._pause_until(oldest)
        self._tasks.popleft().result()

    async def all(self) -> None:
        """Wait until every one is delivered.

        Raises:
            aiokafka.errors.KafkaError: one was not.
        """
        while self._tasks:
            await self.first()

    async def settle(self) -> None:
        """Wait until every one has come to its end, whichever that is."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def abandon(self) -> None:
        """Give up what is under way; it is read again from what was committed."""
        tasks = tuple(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pause_until(self, oldest: asyncio.Task[None]) -> None:
        paused = self._consumer.assignment()
        log.warning(
            "Kafka is slow: %d polls are under way and not delivered, no more are taken",
            len(self._tasks),
        )
        self._consumer.pause(*paused)
        try:
            while not oldest.done():
                await poll(self._consumer, timeout_ms=0)
                await asyncio.wait({oldest}, timeout=PAUSED_POLL_SECONDS)
        finally:
            # Those that went to others meanwhile are not ours to resume.
            self._consumer.resume(*(paused & self._consumer.assignment()))
        log.info("Kafka has taken them; going on")
