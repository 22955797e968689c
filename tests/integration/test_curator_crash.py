"""Curators that are killed, frozen, joined and left: each piece of feedback is counted once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.feedback_batch import FeedbackBatch
from schemas.prompts import SourcePosition
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.curating import (
    about,
    curating,
    curator_settings,
    enriched,
    give,
    heard,
    letters,
    serve,
    until_heard,
)
from tests.support.processes import Driftgate, Launch
from tests.support.topics import log_records, put
from tests.support.workers import until


@asynccontextmanager
async def stream(kafka: KafkaSettings) -> AsyncIterator[list[SourcePosition]]:
    """Feedback while the block runs, on two services, half of it to be looked up; what was sent."""
    events = [enriched(n, service=f"service-{n % 2}", candidate=n % 3 == 0) for n in range(40)]
    await serve(kafka, events)
    sent: list[SourcePosition] = []
    ending = False

    async def flow() -> None:
        number = 0
        while not ending:
            said = [
                about(events[(number + n) % 40], n / 10, attributed=n % 2 == 0) for n in range(10)
            ]
            sent.extend(await give(kafka, said))
            number += 1
            await asyncio.sleep(0.05)

    task = asyncio.create_task(flow())
    try:
        yield sent
    finally:
        # Not by a cancel: what is being sent then arrives, and where it stands nobody hears.
        ending = True
        await task


@pytest.fixture
def start(kafka: KafkaSettings, launch: Launch) -> Launch:
    """Starts a curator with short windows."""

    def started(*arguments: str, kafka: KafkaSettings = kafka, **variables: str) -> Driftgate:
        variables = {"DRIFTGATE_CURATION_SECONDS": "1", **variables}
        return launch("curator", *arguments, kafka=kafka, **variables)

    return started


def test_each_piece_counts_once_over_kills(kafka: KafkaSettings, start: Launch) -> None:
    """kill -9 while it connects, when it has its partitions, and in the middle of its work."""
    chance = random.Random(7)

    async def story() -> list[SourcePosition]:
        async with stream(kafka) as sent:
            for moment in ("waiting for feedback", "working on", "working on", "working on"):
                curator = start(kafka=kafka)
                await asyncio.to_thread(curator.wait_for_log, moment)
                if moment == "working on":
                    await counts_on(kafka)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                await asyncio.to_thread(curator.kill)
            last = start(kafka=kafka)
            await counts_on(kafka)
        await until_heard(kafka, sent)
        assert await asyncio.to_thread(last.stop) == 0
        assert "Traceback" not in last.log
        return sent

    sent = asyncio.run(story())
    assert len(sent) > 100
    assert not asyncio.run(letters(kafka))


def test_each_piece_counts_once_over_rebalances(kafka: KafkaSettings, start: Launch) -> None:
    """A second curator joins, the first is frozen and comes back, a third joins, one is stopped."""

    async def story() -> None:
        async with stream(kafka) as sent:
            first = start(kafka=kafka)
            await asyncio.to_thread(first.wait_for_log, "working on")
            await counts_on(kafka)
            second = start(kafka=kafka)
            await asyncio.to_thread(second.wait_for_log, "working on")
            await counts_on(kafka)
            first.suspend()
            # The group gives its partitions to the second one after 6 s.
            await asyncio.to_thread(second.wait_for_log, "working on", 2)
            await counts_on(kafka)
            first.resume()
            third = start(kafka=kafka)
            await asyncio.to_thread(third.wait_for_log, "working on")
            await counts_on(kafka)
            assert await asyncio.to_thread(second.stop) == 0
            await counts_on(kafka)
        await until_heard(kafka, sent)
        for each in (first, third):
            assert await asyncio.to_thread(each.stop) == 0

    asyncio.run(story())
    assert not asyncio.run(letters(kafka))


async def counts_on(kafka: KafkaSettings) -> None:
    """Wait until feedback is counted that was not before."""
    before = len(await heard(kafka))

    async def more() -> bool:
        return len(await heard(kafka)) > before + 20

    await until("feedback is counted", more)


async def test_what_was_delivered_and_not_committed_counts_once(kafka: KafkaSettings) -> None:
    """A crash between delivery and commit, exactly: offsets go back, and all is delivered again."""
    events = [enriched(n) for n in range(10)]
    await serve(kafka, events)
    said = [about(event, 0.5, attributed=n % 2 == 0) for n, event in enumerate(events)]
    places = await give(kafka, said * 5)
    settings = curator_settings(kafka)
    async with curating(settings):
        await until_heard(kafka, places)
    await rewind(kafka, settings.group_id)
    more = await give(kafka, said)
    async with curating(settings) as again:
        await until_heard(kafka, [*places, *more])
        await until("all again", lambda: again.telemetry.joined.total() == len(places) + len(more))
    batches = [one for one in await log_records(kafka) if isinstance(one, FeedbackBatch)]
    assert sum(len(batch.rows()) for batch in batches) == 2 * len(places) + len(more)


async def rewind(kafka: KafkaSettings, group: str) -> None:
    """Set the group's offsets of feedback back to the beginning."""
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        partitions = [TopicPartition(kafka.topic(Topic.FEEDBACK), number) for number in (0, 1)]
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, 0))


async def test_what_is_no_event_or_case_stops_nobody(kafka: KafkaSettings) -> None:
    """Junk on every topic that a curator reads is passed over, before and while it works."""

    async def junk() -> None:
        for topic in (Topic.ENRICHED, Topic.CURATED, Topic.CONTROL):
            await put(kafka, topic, b"key", b"junk", [("ce_type", b"driftgate.drift.detected.v1")])
            await put(kafka, topic, b"key", None)

    await junk()
    event = enriched(1)
    await serve(kafka, [event])
    async with curating(curator_settings(kafka)) as curator:
        await until("it is ready", lambda: curator.telemetry.ready)
        await junk()
        places = await give(kafka, [about(event, 0.5, attributed=False)])
        await until_heard(kafka, places)
        await until("junk is counted", lambda: curator.telemetry.undecodable.total() == 4)
    assert curator.telemetry.failures == 0
