"""Writing and reading topics in tests: every record that is read back keeps the contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from driftgate.reading import TopicReader
from schemas import cloudevents
from schemas.log import Heartbeat, LogRecord, MeasurementBatch, decode_log_record
from schemas.prompts import PromptEnriched, PromptRejected, SourcePosition
from schemas.rollout import RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.dedupe import new_rows
from tests.support.contract import assert_valid
from tests.support.processes import SOON_S

__all__ = [
    "Measured",
    "Outcome",
    "heartbeats",
    "log_records",
    "measured",
    "outcome",
    "prompt",
    "publish_state",
    "read",
    "submit",
    "wait_for_outcome",
]

Prompt = tuple[bytes | None, bytes | None]
"""Key and value of a record."""


def prompt(text: str, id: str | None = None, **fields: Any) -> Prompt:
    """A prompt as a producer sends it, keyed by its id."""
    value = {"prompt": text, **({"id": id} if id else {}), **fields}
    return (id.encode() if id else None, msgspec.json.encode(value))


async def submit(
    kafka: KafkaSettings,
    prompts: Iterable[Prompt],
    *,
    partition: int | None = None,
    timestamp_ms: int | None = None,
) -> list[SourcePosition]:
    """Publish records to the prompts topic; where each of them stands."""
    topic = kafka.topic(Topic.PROMPTS)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        max_request_size=8 * 2**20,
        linger_ms=5,
    ) as producer:
        futures = [
            await producer.send(
                topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms
            )
            for key, value in prompts
        ]
        done = await asyncio.gather(*futures)
    return [SourcePosition(topic, one.partition, one.offset) for one in done]


async def publish_state(kafka: KafkaSettings, state: RolloutState) -> None:
    """Put a rollout state where the monitor would."""
    await put(
        kafka,
        Topic.ROLLOUT,
        state.service.encode(),
        cloudevents.encode_json(state),
        cloudevents.headers(
            state,
            id=f"{state.service}/{state.revision}",
            source="/driftgate/monitor",
            subject=state.service,
            time_ms=time.time_ns() // 1_000_000,
        ),
    )


async def put(
    kafka: KafkaSettings,
    topic: Topic,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Write one record."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True
    ) as producer:
        await producer.send_and_wait(kafka.topic(topic), value, key=key, headers=list(headers))


async def read(kafka: KafkaSettings, *topics: Topic, committed_only: bool = True) -> list[Any]:
    """All records of topics up to their present ends, each held against the contract."""
    async with TopicReader(kafka, *topics, committed_only=committed_only) as reader:
        records = [record async for record in reader.to_end()]
    for record in records:
        if record.topic != kafka.topic(Topic.PROMPTS):
            assert_valid(record.topic, record.headers, record.value)
    return records


class Outcome(NamedTuple):
    """What a reader of committed records finds about prompts."""

    enriched: list[PromptEnriched]
    rejected: list[PromptRejected]
    records: list[Any]
    """Of both, as they were read."""

    @property
    def positions(self) -> list[SourcePosition]:
        """The source of every result, sorted: one that stands twice was published twice."""
        return sorted(one.source for one in (*self.enriched, *self.rejected))


async def outcome(kafka: KafkaSettings, *, committed_only: bool = True) -> Outcome:
    """The results up to now."""
    records = await read(kafka, Topic.ENRICHED, Topic.REJECTED, committed_only=committed_only)
    enriched = kafka.topic(Topic.ENRICHED)
    return Outcome(
        [cloudevents.decode_json(r.value, PromptEnriched) for r in records if r.topic == enriched],
        [cloudevents.decode_json(r.value, PromptRejected) for r in records if r.topic != enriched],
        records,
    )


async def wait_for_outcome(kafka: KafkaSettings, count: int, within_s: float = SOON_S) -> Outcome:
    """The results, once there are so many; more than that is for the test to find."""
    found = 0
    async with TopicReader(kafka, Topic.ENRICHED, Topic.REJECTED, committed_only=True) as reader:
        deadline = time.monotonic() + within_s
        while found < count:
            found += len(await reader.poll(0.5))
            late = time.monotonic() > deadline
            assert found >= count or not late, f"{found} of {count} results within {within_s:g} s"
    return await outcome(kafka)


async def log_records(kafka: KafkaSettings) -> list[LogRecord]:
    """The records of the log."""
    return [decode_log_record(record.value) for record in await read(kafka, Topic.LOG)]


async def heartbeats(kafka: KafkaSettings, worker_id: str | None = None) -> list[Heartbeat]:
    """The heartbeats of a worker, or of all."""
    return [
        record
        for record in await log_records(kafka)
        if isinstance(record, Heartbeat) and worker_id in (None, record.worker_id)
    ]


class Measured(NamedTuple):
    """What the log says was measured."""

    rows: int
    """As delivered."""
    positions: list[tuple[int, int]]
    """Partition and offset of each row that the monitor counts, sorted."""
    flags: dict[tuple[int, int], int]
    batches: list[MeasurementBatch]


async def measured(kafka: KafkaSettings) -> Measured:
    """The measurement batches, counted as the monitor counts them."""
    seen: dict[str, int] = {}
    rows = 0
    flags: list[tuple[tuple[int, int], int]] = []
    batches = [one for one in await log_records(kafka) if isinstance(one, MeasurementBatch)]
    for batch in batches:
        found = batch.rows()
        rows += len(found)
        fresh = found.where(new_rows(found, batch.source_topic, seen))
        places = zip(fresh.partition.tolist(), fresh.offset.tolist(), strict=True)
        flags += zip(places, fresh.flags.tolist(), strict=True)
    return Measured(rows, sorted(place for place, _ in flags), dict(flags), batches)
