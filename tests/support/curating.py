"""Curators on a real broker: what they read, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from analyzer.curation import CurationLimits
from analyzer.curator import Curator
from analyzer.curator_settings import CuratorSettings
from analyzer.served import attribution_of
from schemas import cloudevents
from schemas.control import DriftCleared, DriftDetected
from schemas.feedback import CuratedCase, FeedbackRejected
from schemas.feedback_batch import FEEDBACK_COLUMNS, FeedbackBatch, FeedbackFlag
from schemas.prompts import Arm, Assignment, PromptEnriched, SemanticScores, SourcePosition
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.dedupe import new_rows
from tests.support.processes import SOON_S
from tests.support.samples import sample
from tests.support.topics import log_records, read

__all__ = [
    "SERVICE",
    "Heard",
    "about",
    "cases",
    "curating",
    "curator_settings",
    "drift",
    "enriched",
    "give",
    "heard",
    "letters",
    "serve",
    "until_heard",
]

SERVICE = "shop"
GOOD: dict[str, Any] = {
    "coherence": 0.9,
    "relevance": 0.9,
    "density": 0.9,
    "clarity": 0.9,
    "specificity": 0.9,
    "actionability": 0.9,
    "overall": 0.6,
    "domain": "general",
    "domain_cosine": 0.5,
    "centroid_distance": 0.5,
    "cache_hit": False,
}


def enriched(number: int, prompt: str = "", *, candidate: bool = False, **changes: Any
             ) -> PromptEnriched:  # fmt: skip
    """An event that is no problem case, unless it is changed; scores are changed by name."""
    scores = {name: changes.pop(name) for name in tuple(changes) if name in GOOD}
    rules = msgspec.structs.replace(sample(PromptEnriched).rules, overall=0.5)
    source = SourcePosition("prompts", 0, number)
    values: dict[str, Any] = {
        "id": source.event_id(),
        "prompt_id": f"p-{number}",
        "service": SERVICE,
        "source": source,
        "prompt": prompt or f"Explain subject {number} in {number * 7919} words, part {number**2}",
        "path": "semantic",
        "fallback_reason": None,
        "assignment": Assignment(
            arm=Arm.CANDIDATE if candidate else Arm.CONTROL,
            deployment="semantic" if candidate else "baseline",
            rollout_id="r-1",
            rollout_revision=2,
            segment="pro" if candidate else "rest",
        ),
        "rules": rules,
        "semantic": SemanticScores(**{**GOOD, **scores}),
        "score": 0.6,
        **changes,
    }
    return msgspec.structs.replace(sample(PromptEnriched), **values)


async def serve(
    kafka: KafkaSettings, events: Iterable[PromptEnriched], *, times_ms: Sequence[int] = ()
) -> None:
    """Publish results as an analyzer does: in a transaction, under the prompt's key."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=f"{kafka.topic_prefix}test-analyzer",
    )
    async with producer, producer.transaction():
        for n, event in enumerate(events):
            await producer.send(
                kafka.topic(Topic.ENRICHED),
                cloudevents.encode_json(event),
                key=(event.prompt_id or "").encode(),
                timestamp_ms=times_ms[n] if times_ms else None,
            )


def about(event: PromptEnriched, value: float, *, attributed: bool = True, **fields: Any
          ) -> dict[str, Any]:  # fmt: skip
    """Feedback on an event, a user's rating unless it is said."""
    attribution = {"attribution": attribution_of(event)} if attributed else {}
    return {"event_id": event.id, "kind": "user_rating", "value": value, **attribution, **fields}


async def give(
    kafka: KafkaSettings,
    feedback: Iterable[dict[str, Any] | bytes | None],
    *,
    partition: int | None = None,
    times_ms: Sequence[int] = (),
) -> list[SourcePosition]:
    """Publish feedback, keyed by the event; where each piece stands."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True, linger_ms=5
    ) as producer:
        futures = []
        for n, one in enumerate(feedback):
            value = msgspec.json.encode(one) if isinstance(one, dict) else one
            key = one["event_id"].encode() if isinstance(one, dict) else b"key"
            futures.append(
                await producer.send(
                    kafka.topic(Topic.FEEDBACK),
                    value,
                    key=key,
                    partition=partition,
                    timestamp_ms=times_ms[n] if times_ms else None,
                )
            )
        done = await asyncio.gather(*futures)
    return [SourcePosition(one.topic, one.partition, one.offset) for one in done]


class Heard(NamedTuple):
    """A piece of feedback as the monitor counts it."""

    partition: int
    offset: int
    service: str
    flags: FeedbackFlag
    segment: str
    revision: int
    value: float


async def heard(kafka: KafkaSettings) -> list[Heard]:
    """All feedback of the log, as the monitor counts it: each once, by service."""
    seen: dict[str, dict[str, int]] = {}
    found = []
    for batch in await log_records(kafka):
        if not isinstance(batch, FeedbackBatch):
            continue
        rows = batch.rows()
        fresh = rows.where(new_rows(rows, batch.source_topic, seen.setdefault(batch.service, {})))
        columns = {name: getattr(fresh, name).tolist() for name in FEEDBACK_COLUMNS}
        for row in zip(*columns.values(), strict=True):
            one = dict(zip(columns, row, strict=True))
            found.append(
                Heard(
                    one["partition"],
                    one["offset"],
                    batch.service,
                    FeedbackFlag(one["flags"]),
                    batch.segments[one["segment"]],
                    one["revision"],
                    round(one["value"], 4),
                )
            )
    return sorted(found)


async def until_heard(
    kafka: KafkaSettings, positions: Sequence[SourcePosition], within_s: float = SOON_S
) -> list[Heard]:
    """Wait until all of these are counted, and see that each is once, and no other one."""
    sent = Counter((one.partition, one.offset) for one in positions)
    deadline = time.monotonic() + within_s
    while True:
        found = await heard(kafka)
        counted = Counter((one.partition, one.offset) for one in found)
        missing, extra = sent - counted, counted - sent
        if not missing or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    assert counted == sent, (
        f"of {len(positions)} pieces of feedback, as (partition, offset): "
        f"missing {sorted(missing.elements())}, too many {sorted(extra.elements())}"
    )
    return found


async def letters(kafka: KafkaSettings) -> list[FeedbackRejected]:
    """The dead letters of feedback, each once."""
    records = await read(kafka, Topic.FEEDBACK_REJECTED)
    found = [cloudevents.decode_json(r.value, FeedbackRejected) for r in records]
    return sorted({one.id: one for one in found}.values(), key=lambda one: one.source)


async def cases(kafka: KafkaSettings) -> dict[str, CuratedCase]:
    """The cases as compaction leaves them: the last record of each key."""
    records = await read(kafka, Topic.CURATED)
    found = {}
    for record in records:
        case = cloudevents.decode_json(record.value, CuratedCase)
        assert record.key == case.id.encode()
        found[case.id] = case
    return found


def drift(kind: type[DriftDetected | DriftCleared], at_ms: int, service: str = SERVICE
          ) -> DriftDetected | DriftCleared:  # fmt: skip
    """A drift alarm that begins or ends."""
    return msgspec.structs.replace(
        sample(kind), id=f"{kind.__name__}/{at_ms}", service=service, at_ms=at_ms
    )


def curator_settings(kafka: KafkaSettings, name: str = "c-1", **changes: Any) -> CuratorSettings:
    """Settings of a curator that neither waits nor collects for long."""
    limits = CurationLimits(
        window_seconds=changes.pop("window_seconds", 0.5), cases=changes.pop("cases", 5)
    )
    return CuratorSettings(
        kafka=kafka,
        curator_id=name,
        **{"late_seconds": 1.0, "curation": limits, **changes},
    )


@asynccontextmanager
async def curating(settings: CuratorSettings) -> AsyncIterator[Curator]:
    """A curator that runs while the block does, and is stopped in order after it.

    A curator that fails fails the block, too.
    """
    curator = Curator(settings)
    task = asyncio.create_task(curator.run())
    try:
        yield curator
    finally:
        curator.stop()
        async with asyncio.timeout(SOON_S):
            await task
