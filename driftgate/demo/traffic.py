"""Whose prompts the demo analyses, and what they say of the results."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from importlib import resources

import msgspec
from aiokafka import AIOKafkaProducer

from driftgate.producing import read_prompts, repeated
from driftgate.reading import TopicReader
from schemas.feedback import Attribution, FeedbackGiven, FeedbackKind
from schemas.prompts import PromptEnriched, PromptSubmitted
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["RATE_PER_S", "submit", "tell"]

RATE_PER_S = 50.0
"""A small machine without bf16 analyses about 130 texts a second, and all of driftgate is on it."""
_BAD_PROMPTS = (b"not json", b'{"prompt": "   "}', b'{"text": "no prompt"}', b'{"prompt": "\xff"}')
_EVERY_BAD = 60
"""Among so many good prompts there is a bad one."""
_EVERY_RATED = 10
"""Of so many results one is rated: people seldom do."""


async def submit(kafka: KafkaSettings) -> None:
    """Publish prompts at a steady rate, with bad ones among them, until cancelled."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
    )
    await producer.start()
    topic = kafka.topic(Topic.PROMPTS)
    try:
        started = time.monotonic()
        for number, (key, value) in enumerate(_records(_sample())):
            await asyncio.sleep(max(started + number / RATE_PER_S - time.monotonic(), 0))
            await producer.send(topic, key=key, value=value)
    finally:
        # Flushes: what was sent is on the topic before anybody counts.
        await producer.stop()


async def tell(kafka: KafkaSettings) -> None:
    """Rate some of the results, as people would who saw them, until cancelled."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=50)
    await producer.start()
    try:
        async with TopicReader(kafka, Topic.ENRICHED) as reader:
            for number in itertools.count():
                records = await reader.poll(0.5)
                for record in records[number % _EVERY_RATED :: _EVERY_RATED]:
                    event = msgspec.json.decode(record.value, type=PromptEnriched)
                    await producer.send(
                        kafka.topic(Topic.FEEDBACK), value=msgspec.json.encode(_rating(event))
                    )
    finally:
        await producer.stop()


def _rating(event: PromptEnriched) -> FeedbackGiven:
    """Thumbs up or down: more often up the better the result."""
    place = event.source.offset * 0.618 % 1.0
    served = {"service": event.service, **msgspec.to_builtins(event.assignment)}
    return FeedbackGiven(
        event_id=event.id,
        kind=FeedbackKind.USER_RATING,
        value=float(place < 0.35 + 0.6 * event.score),
        attribution=msgspec.convert(served, Attribution),
        actor="a user of the demo",
    )


def _sample() -> list[PromptSubmitted]:
    with resources.as_file(resources.files("driftgate").joinpath("demo_prompts.jsonl")) as path:
        return [row for row in read_prompts(path) if isinstance(row, PromptSubmitted)]


def _records(prompts: list[PromptSubmitted]) -> Iterator[tuple[bytes | None, bytes]]:
    bad = itertools.cycle(_BAD_PROMPTS)
    for number, prompt in enumerate(repeated(prompts, None), 1):
        # By user: a user's prompts meet the same worker, and its cache, each time.
        yield (prompt.user_id or "").encode() or None, msgspec.json.encode(prompt)
        if number % _EVERY_BAD == 0:
            yield None, next(bad)
