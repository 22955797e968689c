"""Faust's Kafka transport, told how long a fetch may wait and to hand the log over in chunks.

aiokafka has one fetch at a time under way to each broker. Faust has it wait for 1.5 s where nothing
new is there, which no setting of Faust's changes. While records of the log wait in the client for
more than 0.1 s, because the fold is busy, the next fetch is for the other partitions alone: mostly
the commands, in which nothing happens. The log is then not fetched until that has waited in vain:
with a backlog the monitor stood still for most of the time.

An event of Faust's costs several times what the fold of a record costs (a task, two queues, a
stream). So what one fetch has brought of a partition of the log is one event here, a `Chunk`, and
is acknowledged as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

__all__ = [
    "FETCH_MAX_BYTES",
    "FETCH_MAX_WAIT_MS",
    "Chunk",
    "KafkaRecord",
    "Transport",
    "as_chunks",
    "waiting_max_events",
]

FETCH_MAX_WAIT_MS = 50
"""Less is more requests of an idle monitor (20 a second now), more is a longer stop. What one fetch
brings must last longer than this."""
FETCH_MAX_BYTES = 4 * 2**20
"""Of a partition. At 100 rows a record that is 800 records, 0.15 s for a fold that takes 500,000
rows a second; more is memory, of each partition."""


def waiting_max_events(partitions: int) -> int:
    """For `faust.App.stream_buffer_maxsize`: how much may wait for the fold.

    With four fifths of it waiting Faust fetches no more of the partition that it has an event of,
    until two fifths are left. That is when all partitions have brought a chunk, and four more have
    come: enough to go on with meanwhile, and no memory to speak of.
    """
    return -(-5 * (partitions + 4) // 4)


class KafkaRecord(Protocol):
    """A record as aiokafka has it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """ms since the epoch."""
    timestamp_type: int
    key: bytes | None
    value: bytes | None


class Chunk(ConsumerMessage):  # type: ignore[misc] # an untyped class
    """What one fetch has brought of a partition, as one message of Faust's: that of its last."""

    __slots__ = ("records",)

    records: Sequence[KafkaRecord]
    """In the order of their offsets; never empty."""


class _Fetched:
    """A chunk before it is a message."""

    def __init__(self, records: Sequence[KafkaRecord]) -> None:
        self.records = records


def as_chunks(
    found: Mapping[TP, Sequence[KafkaRecord]], chunked: str
) -> Mapping[TP, Sequence[KafkaRecord | _Fetched]]:
    """What a fetch has brought, with all records of a partition of the chunked topic as one."""
    return {
        tp: [_Fetched(records)] if tp.topic == chunked and records else records
        for tp, records in found.items()
    }


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc] # an untyped class
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # It is read when the consumer starts.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001
        return consumer

    async def getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 -- Faust's signature
    ) -> Mapping[TP, Sequence[KafkaRecord | _Fetched]]:
        # A partition that was let go of in the meantime is not in this call: it must end soon.
        found = await super().getmany(active_partitions, min(timeout, FETCH_MAX_WAIT_MS / 1000))
        return as_chunks(found, self.transport.chunked)


class _Consumer(driver.Consumer):  # type: ignore[misc] # an untyped class
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: KafkaRecord | _Fetched) -> ConsumerMessage:
        if not isinstance(record, _Fetched):
            return super()._to_message(tp, record)
        last = record.records[-1]
        chunk = Chunk(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            (),
            last.key,
            last.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        chunk.records = record.records
        return chunk

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # Faust takes offsets that it was not given for acknowledged. Within a chunk it is given the
        # last one only.
        if tp.topic != self.transport.chunked:
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        """What may be committed: Faust's own way needs each single offset acknowledged."""
        if tp.topic != self.transport.chunked:
            offset: int | None = super()._new_offset(tp)
            return offset
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        # Chunks are acknowledged in their order.
        last: int = acknowledged[-1]
        acknowledged.clear()
        self._acked_index[tp].clear()
        return last + 1


class Transport(driver.Transport):  # type: ignore[misc] # an untyped class
    """For `faust.App.transport`.

    Args:
        url: the broker's.
        app: Faust's.
        chunked: the full name of the topic whose messages are to be chunks.
    """

    Consumer = _Consumer

    def __init__(self, url: Any, app: faust.App, *, chunked: str) -> None:
        super().__init__(url, app)
        self.chunked = chunked
