"""A broker that is away at the start or goes away later costs a curator time, and nothing else.

The broker is stopped here, so it is one of these tests' own.
"""

from __future__ import annotations

import asyncio

from driftgate.broker import EmbeddedKafka
from driftgate.topics import ensure_topics
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
from tests.support.monitoring import topic_limit
from tests.support.processes import Launch
from tests.support.workers import until


def settings(own: EmbeddedKafka) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=f"127.0.0.1:{own._wanted_port}", prompt_partitions=2, service_partitions=1
    )


def test_a_curator_waits_for_a_broker_that_is_away(own: EmbeddedKafka, launch: Launch) -> None:
    """One that is started first says what it misses and where to set it, and then works."""
    kafka = settings(own)
    curator = launch("curator", kafka=kafka)
    curator.wait_for_log("trying again")
    assert "DRIFTGATE_BOOTSTRAP_SERVERS" in curator.log
    own.start()
    curator.wait_for_log("working on")

    async def story() -> None:
        event = enriched(1)
        await serve(kafka, [event])
        places = await give(kafka, [about(event, 1.0, attributed=False)])
        await until_heard(kafka, places)

    asyncio.run(story())
    assert curator.stop() == 0
    assert "Traceback" not in curator.log


async def test_an_outage_loses_and_repeats_nothing(own: EmbeddedKafka) -> None:
    """The broker goes away in mid-stream, and the curator goes on by itself when it is back."""
    await asyncio.to_thread(own.start)
    kafka = settings(own)
    await ensure_topics(kafka)
    events = [enriched(n) for n in range(20)]
    await serve(kafka, events)
    said = [about(event, 0.5, attributed=n % 2 == 0) for n, event in enumerate(events)]
    async with curating(curator_settings(kafka)) as curator:
        places = await give(kafka, said * 10)
        await until("it works", lambda: curator.telemetry.joined.total() > 0)
        await asyncio.to_thread(own.stop)
        await until("it has noticed", lambda: curator.telemetry.failures > 1)
        assert not curator.telemetry.ready
        await asyncio.to_thread(own.start)
        places += await give(kafka, said)
        await until_heard(kafka, places)
    assert not await letters(kafka)


async def test_a_curator_stops_while_the_broker_is_away(own: EmbeddedKafka) -> None:
    """A stop does not wait for the broker; what was not delivered is done by the next start."""
    await asyncio.to_thread(own.start)
    kafka = settings(own)
    await ensure_topics(kafka)
    event = enriched(1)
    await serve(kafka, [event])
    async with curating(curator_settings(kafka)) as curator:
        await until("it works", lambda: curator.telemetry.ready)
        places = await give(kafka, [about(event, 0.5)] * 100)
        await asyncio.to_thread(own.stop)
    await asyncio.to_thread(own.start)
    async with curating(curator_settings(kafka)):
        await until_heard(kafka, places)


async def test_a_log_that_takes_nothing_holds_everything_back(kafka: KafkaSettings) -> None:
    """While the log refuses a batch its offsets are not committed, and it is tried again."""
    event = enriched(1)
    await serve(kafka, [event])
    async with curating(curator_settings(kafka)) as curator:
        await until("it is ready", lambda: curator.telemetry.ready)
        await topic_limit(kafka, Topic.LOG, 50)
        places = await give(kafka, [about(event, 0.5)] * 20)
        await until("it has failed", lambda: curator.telemetry.failures > 1)
        assert not await heard(kafka)
        await topic_limit(kafka, Topic.LOG, 2**20)
        await until_heard(kafka, places)
