"""Giving up a producer that cannot be trusted any more."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerClosed

__all__ = ["discard", "see"]

_STOP_SECONDS = 3.0
"""For a producer to stop; one that cannot reach its broker would try for ever."""


def see(future: asyncio.Future[Any]) -> None:
    """Take note of an error, which asyncio would report else."""
    if not future.cancelled():
        future.exception()


async def discard(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for what it has not sent: its broker may be away for good."""
    producer._closed = True  # noqa: SLF001 - its own stop() waits
    for stop in (producer._sender.close, producer.client.close):  # noqa: SLF001
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_SECONDS):
                await stop()
    unsent = producer._message_accumulator  # noqa: SLF001
    batches = [batch for several in unsent._batches.values() for batch in several]  # noqa: SLF001
    # Where one that was to be sent again is looked for when it fails.
    unsent._pending_batches.update(batches)  # noqa: SLF001
    unsent.fail_all(ProducerClosed())
    waiters = [batch._drain_waiter for batch in batches]  # noqa: SLF001
    transactions = producer._txn_manager  # noqa: SLF001
    if transactions is not None:
        waiters.append(transactions._transaction_waiter)  # noqa: SLF001
    for waiter in waiters:
        if waiter is not None and waiter.done():
            see(waiter)
