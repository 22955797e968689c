"""Reading ranges of a topic and writing the fold's outputs: the monitor's own Kafka clients.

Faust feeds the log; what the monitor says goes out by a producer of its own, because its futures
carry errors (Faust's are only logged), and ranges are read back by a consumer without a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import cloudevents
from schemas.log import LogRecord, encode_log_record
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.outputs import Output

__all__ = ["KafkaIO"]

SOURCE = "/driftgate/monitor"
_FETCH_TIMEOUT_MS = 1000
_LAST_RECORDS = 100
"""Records looked back on for a key: nearly all have one."""


class KafkaIO:
    """Kafka as the monitor needs it; connects when first used. Stop it in the end."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                # Idempotent but not transactional: markers in a topic that Faust reads stall its
                # commits.
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._kafka.bootstrap_servers,
                    enable_idempotence=True,
                    acks="all",
                    max_request_size=4 * 2**20,
                )
                await producer.start()
                self._producer = producer
            return self._producer

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def publish(self, outputs: Sequence[Output], partition: int) -> None:
        """Publish to one partition of each topic, in order, and wait until all are delivered.

        Raises:
            aiokafka.errors.KafkaError: one was not; none may be taken for delivered.
        """
        futures = [await self._send(output, partition) for output in outputs]
        await asyncio.gather(*futures)

    async def _send(self, output: Output, partition: int) -> asyncio.Future[Any]:
        producer = await self._connected()
        service = output.event.service
        extensions = {
            "causationid": f"{self._kafka.topic(Topic.LOG)}/{output.cause.partition}"
            f"/{output.cause.offset}"
        }
        if output.rollout_id is not None:
            extensions["correlationid"] = output.rollout_id
        future: asyncio.Future[Any] = await producer.send(
            self._kafka.topic(output.topic),
            key=service.encode(),
            value=cloudevents.encode_json(output.event),
            headers=cloudevents.headers(
                output.event,
                id=output.id,
                source=SOURCE,
                subject=service,
                time_ms=output.at_ms,
                extensions=extensions,
            ),
            partition=partition,
        )
        return future

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes
    ) -> asyncio.Future[Any]:
        """Send a plain record to a topic of this full name; await the future for its delivery."""
        producer = await self._connected()
        future: asyncio.Future[Any] = await producer.send(
            topic, key=key, value=value, partition=partition
        )
        return future

    async def append(self, record: LogRecord, partition: int | None = None) -> None:
        """Append to the log and wait until it is delivered.

        Args:
            record: keyed by its service.
            partition: where, or None for the one that the key belongs to.
        """
        producer = await self._connected()
        await producer.send_and_wait(
            self._kafka.topic(Topic.LOG),
            key=record.service.encode(),
            value=encode_log_record(record),
            partition=partition,
        )

    async def beginning(self, topic: Topic, partition: int) -> int:
        """The first offset that the broker still has."""
        tp = TopicPartition(self._kafka.topic(topic), partition)
        async with self._consumer() as consumer:
            found = await consumer.beginning_offsets([tp])
        return int(found[tp])

    async def read(
        self, topic: Topic | str, partition: int, *, start: int, end: int | None = None
    ) -> AsyncIterator[Any]:
        """The records from offset ``start`` to before ``end`` (or to the present end).

        Args:
            topic: one of ours, or the full name of any.
            partition: of it.
            start: below the first offset that the broker still has, it is that one.
            end: the present end when left out.
        """
        name = self._kafka.topic(topic) if isinstance(topic, Topic) else topic
        tp = TopicPartition(name, partition)
        async with self._consumer() as consumer:
            consumer.assign([tp])
            limit = end if end is not None else (await consumer.end_offsets([tp]))[tp]
            start = max(start, (await consumer.beginning_offsets([tp]))[tp])
            if start >= limit:
                return
            consumer.seek(tp, start)
            # The position, not the last record: a compacted topic has gaps.
            while await consumer.position(tp) < limit:
                found = await consumer.getmany(tp, timeout_ms=_FETCH_TIMEOUT_MS)
                for record in found.get(tp, ()):
                    if record.offset >= limit:
                        return
                    yield record

    async def last_key(self, topic: Topic, partition: int) -> bytes | None:
        """The newest key among the last records of a partition; None when there is none."""
        tp = TopicPartition(self._kafka.topic(topic), partition)
        async with self._consumer() as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
            start = max((await consumer.beginning_offsets([tp]))[tp], end - _LAST_RECORDS)
        key = None
        async for record in self.read(topic, partition, start=start, end=end):
            key = record.key or key
        return key

    async def event_ids_since(self, topic: Topic, partition: int, since_ms: int) -> set[str]:
        """CloudEvents ids of what was appended since a time, ms since the epoch."""
        tp = TopicPartition(self._kafka.topic(topic), partition)
        async with self._consumer() as consumer:
            found = (await consumer.offsets_for_times({tp: max(since_ms, 0)}))[tp]
        if found is None:
            return set()
        ids = set()
        async for record in self.read(topic, partition, start=found.offset):
            ids.add(cloudevents.attributes(record.headers).get("id", ""))
        return ids

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
