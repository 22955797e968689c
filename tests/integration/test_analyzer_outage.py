"""A broker that is away at the start or goes away later costs time, and nothing else.

The broker is stopped here, so it is one of these tests' own.
"""

from __future__ import annotations

import asyncio

from driftgate.broker import EmbeddedKafka
from driftgate.topics import ensure_topics
from schemas.settings import KafkaSettings
from tests.support.processes import Launch
from tests.support.topics import measured, outcome, prompt, submit, wait_for_outcome
from tests.support.workers import settings_of, until, working

NO_MODEL = {"DRIFTGATE_MODEL": "/nonexistent"}


def settings(own: EmbeddedKafka) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=f"127.0.0.1:{own._wanted_port}", prompt_partitions=2, service_partitions=1
    )


def test_worker_waits_for_a_broker_that_is_away(own: EmbeddedKafka, launch: Launch) -> None:
    """A worker that is started first says what it misses and where to set it, and then works."""
    kafka = settings(own)
    worker = launch("analyzer", kafka=kafka, **NO_MODEL)
    worker.wait_for_log("trying again")
    assert "DRIFTGATE_BOOTSTRAP_SERVERS" in worker.log
    own.start()
    worker.wait_for_log("waiting for prompts")
    sent = asyncio.run(submit(kafka, [prompt(f"Explain topic {n}") for n in range(5)]))
    found = asyncio.run(wait_for_outcome(kafka, len(sent)))
    assert worker.stop() == 0
    assert found.positions == sorted(sent)


def test_worker_that_waits_for_a_broker_can_be_stopped(own: EmbeddedKafka, launch: Launch) -> None:
    """SIGTERM ends a worker that has never seen a broker."""
    worker = launch("analyzer", kafka=settings(own), **NO_MODEL)
    worker.wait_for_log("trying again")
    assert worker.stop() != 0
    assert "Traceback" not in worker.log


async def test_outage_in_mid_stream_loses_and_repeats_nothing(own: EmbeddedKafka) -> None:
    """The broker goes away for as long as it takes to restart, and the worker goes on by itself."""
    await asyncio.to_thread(own.start)
    kafka = settings(own)
    await ensure_topics(kafka)
    sent = await submit(kafka, [prompt(f"Explain topic {n} to me") for n in range(300)])
    async with working(settings_of(kafka, max_poll_records=3)) as worker:
        await until("it works", lambda: worker._prompts > 10)
        await asyncio.to_thread(own.stop)
        assert worker._prompts < len(sent)
        await asyncio.to_thread(own.start)
        sent += await submit(kafka, [prompt(f"Explain topic {n} again") for n in range(20)])
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    places = sorted((one.partition, one.offset) for one in sent)
    assert (await measured(kafka)).positions == places


async def test_worker_stops_while_the_broker_is_away(own: EmbeddedKafka) -> None:
    """A stop does not wait for the broker; what was not committed is done by the next start."""
    await asyncio.to_thread(own.start)
    kafka = settings(own)
    await ensure_topics(kafka)
    sent = await submit(kafka, [prompt(f"Explain topic {n} to me") for n in range(300)])
    async with working(settings_of(kafka, max_poll_records=3)) as worker:
        await until("it works", lambda: worker._prompts > 10)
        await asyncio.to_thread(own.stop)
    assert worker._prompts < len(sent)
    await asyncio.to_thread(own.start)
    async with working(settings_of(kafka)):
        await wait_for_outcome(kafka, len(sent))
    assert (await outcome(kafka)).positions == sorted(sent)
