"""Reading topics back: the newest records of a service, and a stream of control events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from driftgate.errors import DriftgateError, Exit
from schemas import cloudevents
from schemas.control import ControlEvent, GateStatus, WindowMetrics
from schemas.rollout import RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = [
    "TopicReader",
    "decode_control",
    "decode_metrics",
    "latest_gate_status",
    "latest_rollout",
    "latest_windows",
    "read_all",
]

_METADATA_SECONDS = 10.0
_TAIL = 500
"""Records looked back on in each partition of the metrics: minutes, at any window length."""


class TopicReader:
    """Reads whole topics without a group. Use it as an asynchronous context manager."""

    def __init__(self, kafka: KafkaSettings, *topics: Topic, committed_only: bool = False) -> None:
        self._names = [kafka.topic(topic) for topic in topics]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed_only else "read_uncommitted",
            fetch_max_wait_ms=200,
        )
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        try:
            for name in self._names:
                numbers = await self._numbers(name)
                self._partitions += [TopicPartition(name, number) for number in sorted(numbers)]
        except BaseException:
            await self._consumer.stop()
            raise
        self._consumer.assign(self._partitions)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def _numbers(self, name: str) -> set[int]:
        """The partitions of a topic; a broker that has just started may not know them yet."""
        deadline = time.monotonic() + _METADATA_SECONDS
        while True:
            # Asked for, so that the answer is there before it is used.
            await self._consumer._client.force_metadata_update()  # noqa: SLF001
            numbers: set[int] | None = self._consumer.partitions_for_topic(name)
            if numbers:
                return numbers
            if time.monotonic() > deadline:
                raise DriftgateError(
                    f"the broker has no topic {name}; start an analyzer or the monitor, which make "
                    "it, or check DRIFTGATE_TOPIC_PREFIX",
                    Exit.BROKER,
                )
            await asyncio.sleep(0.1)

    async def from_end(self) -> None:
        """Go to the present end of every partition."""
        ends = await self._consumer.end_offsets(self._partitions)
        for tp, end in ends.items():
            self._consumer.seek(tp, end)

    async def beginnings(self) -> dict[int, int]:
        """The first offset that the broker still has, by partition; of a single topic."""
        found = await self._consumer.beginning_offsets(self._partitions)
        return {tp.partition: offset for tp, offset in found.items()}

    async def to_end(self, *, last: int | None = None) -> AsyncIterator[Any]:
        """Records up to the present end: all of them, or at most the last few a partition."""
        ends = await self._consumer.end_offsets(self._partitions)
        begins = await self._consumer.beginning_offsets(self._partitions)
        for tp in self._partitions:
            start = begins[tp] if last is None else max(begins[tp], ends[tp] - last)
            self._consumer.seek(tp, start)
        open_ends = {tp: end for tp, end in ends.items() if end > begins[tp]}
        while open_ends:
            found = await self._consumer.getmany(timeout_ms=200)
            for records in found.values():
                for record in records:
                    if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                        yield record
            # By position: markers and compaction leave gaps in the offsets.
            for tp in list(open_ends):
                if await self._consumer.position(tp) >= open_ends[tp]:
                    del open_ends[tp]

    async def poll(self, timeout_s: float) -> list[Any]:
        """The records that arrive within a time, as soon as there are some."""
        found = await self._consumer.getmany(timeout_ms=round(timeout_s * 1000))
        return [record for records in found.values() for record in records]


async def read_all(kafka: KafkaSettings, topic: Topic, *, committed_only: bool) -> list[Any]:
    """Every record of a topic up to its present end."""
    async with TopicReader(kafka, topic, committed_only=committed_only) as reader:
        return [record async for record in reader.to_end()]


async def latest_rollout(kafka: KafkaSettings, service: str) -> RolloutState | None:
    """The rollout state that analyzers obey; None before the first rollout."""
    found = None
    async with TopicReader(kafka, Topic.ROLLOUT) as reader:
        async for record in reader.to_end():
            if record.key == service.encode() and record.value is not None:
                found = cloudevents.decode_json(record.value, RolloutState)
    return found


async def latest_gate_status(kafka: KafkaSettings, service: str) -> GateStatus | None:
    """How the gates stood when they were last reported."""
    found = None
    async for event in _metrics(kafka, service):
        if isinstance(event, GateStatus) and (found is None or event.at_ms >= found.at_ms):
            found = event
    return found


async def latest_windows(kafka: KafkaSettings, service: str) -> list[WindowMetrics]:
    """The newest metrics of each arm over all segments."""
    newest: dict[str, WindowMetrics] = {}
    async for event in _metrics(kafka, service):
        if isinstance(event, WindowMetrics) and event.segment == "all":
            newest[event.arm] = event
    return [newest[arm] for arm in sorted(newest)]


async def _metrics(kafka: KafkaSettings, service: str) -> AsyncIterator[GateStatus | WindowMetrics]:
    async with TopicReader(kafka, Topic.METRICS) as reader:
        async for record in reader.to_end(last=_TAIL):
            if record.key == service.encode():
                yield decode_metrics(record)


def decode_metrics(record: Any) -> GateStatus | WindowMetrics:
    """An event of the metrics topic, by its CloudEvents type."""
    kind = cloudevents.attributes(record.headers).get("type")
    status = kind == cloudevents.EVENT_TYPES[GateStatus]
    if status:
        return cloudevents.decode_json(record.value, GateStatus)
    return cloudevents.decode_json(record.value, WindowMetrics)


def decode_control(record: Any) -> ControlEvent:
    """An event of the control topic.

    Raises:
        DecodeError: it is none.
    """
    event: ControlEvent = cloudevents.decode_json(record.value, cloudevents.CONTROL_EVENT)
    return event
