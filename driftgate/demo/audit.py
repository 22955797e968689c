"""Reads the topics back and counts: was every prompt answered, and none twice?"""

from __future__ import annotations

from collections import Counter

import msgspec

from driftgate.reading import read_all
from schemas import cloudevents
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["Audit", "audit"]


class Audit(msgspec.Struct, frozen=True):
    """What stands on the topics, as a reader of committed records sees it."""

    prompts: int
    enriched: int
    rejected: int
    lost: int
    """Prompts without any result."""
    duplicated: int
    """Results beyond the first of a prompt."""


async def audit(kafka: KafkaSettings) -> Audit:
    """Count the prompts and their results."""
    prompts = kafka.topic(Topic.PROMPTS)
    asked = {
        f"{prompts}/{record.partition}/{record.offset}"
        for record in await read_all(kafka, Topic.PROMPTS, committed_only=True)
    }
    results: Counter[str] = Counter()
    counts = []
    for topic in (Topic.ENRICHED, Topic.REJECTED):
        records = await read_all(kafka, topic, committed_only=True)
        counts.append(len(records))
        results.update(cloudevents.attributes(record.headers)["id"] for record in records)
    return Audit(
        prompts=len(asked),
        enriched=counts[0],
        rejected=counts[1],
        lost=len(asked - results.keys()),
        duplicated=results.total() - len(results),
    )
