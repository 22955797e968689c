"""Topics of `benchmarks.monitor`: made, filled, read while a system works on them, and removed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from benchmarks.monitor_rows import Message

__all__ = ["BATCH_BYTES", "create", "fill", "follow", "remove", "set_config"]

BATCH_BYTES = 2**18
"""Of a produce request; what a busy producer makes of small records."""
_MARGIN_BYTES = 1024
"""A record is a little larger than its value."""
_WAITING = 200
"""Produce requests that are under way: more is memory, fewer is waiting."""
_POLL_MS = 100


async def create(servers: str, topic: str, config: dict[str, str] | None = None) -> None:
    """Make a topic of one partition, whose records keep the time that they are given."""
    keeps_time = {"message.timestamp.type": "CreateTime"}
    async with _Admin(servers) as admin:
        new = NewTopic(topic, 1, 1, topic_configs=(config or {}) | keeps_time)
        response = await admin.create_topics([new])
    for error in response.topic_errors:
        if error[1]:
            raise SystemExit(f"topic {topic} could not be made: {error}")


async def set_config(servers: str, topic: str, config: dict[str, str]) -> None:
    """Give a topic other settings; the records that it has stay as they are."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, config)
    async with _Admin(servers) as admin:
        for response in await admin.alter_configs([resource]):
            for error in response.resources:
                if error[0]:
                    raise SystemExit(f"topic {topic} keeps its settings: {error}")


async def remove(servers: str, topics: Iterable[str]) -> None:
    """Remove topics."""
    async with _Admin(servers) as admin:
        await admin.delete_topics(list(topics))


async def fill(
    servers: str, topic: str, messages: Iterable[Message], *, batch_bytes: int = BATCH_BYTES
) -> None:
    """Write messages in their order, with their own times, to a topic of one partition.

    Args:
        servers: Kafka.
        topic: it takes the times that it is given.
        messages: in the order of their times.
        batch_bytes: of a produce request, at most; 0 puts one message into each.
    """
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=BATCH_BYTES, acks=1)
    await producer.start()
    try:
        sent: deque[asyncio.Future[Any]] = deque()
        for batch in _batches(producer.create_batch, messages, batch_bytes):
            sent.append(await producer.send_batch(batch, topic, partition=0))
            if len(sent) > _WAITING:
                await sent.popleft()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def _batches(new: Callable[[], Any], messages: Iterable[Message], size: int) -> Iterator[Any]:
    batch = new()
    for message in messages:
        if batch.record_count() and batch.size() + len(message.value) > size - _MARGIN_BYTES:
            yield batch
            batch = new()
        if batch.append(key=message.key, value=message.value, timestamp=message.at_ms) is None:
            raise SystemExit(f"a record of {len(message.value)} bytes does not fit into a batch")
    if batch.record_count():
        yield batch


async def follow(
    servers: str, topic: str, take: Callable[[Any], bool], idle: Callable[[], None], limit_s: float
) -> None:
    """Read a topic until it has been read enough of.

    Args:
        servers: Kafka.
        topic: one partition; it may not be there yet.
        take: is given each record; True for the last one.
        idle: called between polls; what it raises goes on.
        limit_s: the longest wait.

    Raises:
        TimeoutError: the last one did not come.
    """
    deadline = time.monotonic() + limit_s
    async with AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest") as reader:
        partition = TopicPartition(topic, 0)
        reader.assign([partition])
        while time.monotonic() < deadline:
            idle()
            found = await reader.getmany(timeout_ms=_POLL_MS)
            for record in found.get(partition, ()):
                if take(record):
                    return
    raise TimeoutError


class _Admin:
    def __init__(self, servers: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=servers)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
