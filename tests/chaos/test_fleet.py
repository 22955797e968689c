"""A fleet of analyzers that are killed at random moments loses and repeats nothing."""

from __future__ import annotations

import asyncio
import random
import uuid

from driftgate.broker import Broker
from driftgate.topics import ensure_topics
from schemas.prompts import SourcePosition
from schemas.settings import KafkaSettings
from tests.support.processes import Driftgate, Launch
from tests.support.topics import (
    measured,
    outcome,
    prompt,
    publish_state,
    submit,
    wait_for_outcome,
)
from tests.support.workers import rolling

WORKERS = ("w-1", "w-2", "w-3")
KILLS = 20
PAUSE_S = (0.2, 3.0)
"""Between two kills: at the start, in the middle, and after the end of a rebalance."""


def test_twenty_kills_lose_and_repeat_nothing(broker: Broker, launch: Launch) -> None:
    """Three workers, half of the users on green, twenty times kill -9 and a new start.

    Each prompt has one result for a reader of committed records, and is measured once.
    """
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"t-{uuid.uuid4().hex[:8]}.",
        prompt_partitions=6,
        service_partitions=1,
    )
    chance = random.Random(20)

    async def prepare() -> None:
        await ensure_topics(kafka)
        await publish_state(kafka, rolling(share=0.5))

    def start(name: str) -> Driftgate:
        return launch("analyzer", "--worker-id", name, kafka=kafka, DRIFTGATE_MAX_POLL_RECORDS="8")

    async def story() -> list[SourcePosition]:
        fleet = {name: start(name) for name in WORKERS}
        sent: list[SourcePosition] = []
        kills = 0

        async def stream() -> None:
            number = 0
            while kills < KILLS:
                batch = [
                    prompt(f"Explain subject number {n} to a child", f"p-{n}")
                    for n in range(number, number + 10)
                ]
                sent.extend(await submit(kafka, batch))
                number += len(batch)
                await asyncio.sleep(0.1)

        streaming = asyncio.create_task(stream())
        while kills < KILLS:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            name = chance.choice(WORKERS)
            fleet[name].kill()
            kills += 1
            fleet[name] = start(name)
        await streaming
        return sent

    asyncio.run(prepare())
    sent = asyncio.run(story())
    asyncio.run(wait_for_outcome(kafka, len(sent), within_s=120))
    found = asyncio.run(outcome(kafka))
    assert found.positions == sorted(sent)
    rows = asyncio.run(measured(kafka))
    assert rows.positions == sorted((one.partition, one.offset) for one in sent)
