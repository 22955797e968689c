"""A monitor that is killed, stopped, doubled or robbed of its state: no event lost or twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from driftgate.broker import EmbeddedKafka
from driftgate.topics import ensure_topics
from schemas.log import Command
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from streams.kafka_checkpoints import checkpoint_topic
from tests.support.monitoring import (
    Traffic,
    admin,
    as_undisturbed,
    ask,
    committed,
    control_events,
    log_end,
    until_confirmed,
)
from tests.support.processes import Driftgate, Launch
from tests.support.workers import until

HEALTHY = {"coherence": 0.8}
HARM = {"coherence": 0.4}
ROLLED_BACK = ["gate.breached", "rollout.rolled_back", "rollback.confirmed"]


async def pause(rng: random.Random, longest_s: float) -> None:
    """A random moment later: when something is killed must not depend on what it does."""
    await asyncio.sleep(rng.random() * longest_s)


def working_monitor(launch: Launch, kafka: KafkaSettings, name: str = "m1") -> Driftgate:
    """A monitor that has begun to fold."""
    monitor = launch("monitor", "--monitor-id", name, kafka=kafka)
    monitor.wait_for_log("from log offset")
    return monitor


def test_kill_9_at_random_moments(kafka: KafkaSettings, launch: Launch) -> None:
    """Two rollouts, one promoted by hand and one rolled back, over five kills of the monitor.

    Records keep coming while it is away. In the end all outputs of an undisturbed fold of the log
    are there: none missing, none twice, the same ids and bytes, in order.
    """
    rng = random.Random()
    monitor = launch("monitor", kafka=kafka)

    async def again() -> None:
        nonlocal monitor
        await pause(rng, 1.5)
        monitor.kill()
        await pause(rng, 0.7)
        monitor = launch("monitor", kafka=kafka)

    async def run() -> list[str]:
        async with Traffic(kafka, "shop").flowing() as traffic:
            await ask(kafka, Command.START, "shop")
            await again()
            await traffic.until_stage(1)
            await again()
            await traffic.until_stage(2)
            traffic.candidate = HARM
            await again()
            await traffic.until_phase(Phase.ROLLED_BACK)
            traffic.candidate = HEALTHY
            await again()
            answer = await ask(kafka, Command.START, "shop")
            await again()
            await traffic.until_phase(Phase.PROGRESSING, beyond=answer.revision)
            traffic.candidate = HARM
            await traffic.until_phase(Phase.ROLLED_BACK, beyond=answer.revision)
            await until_confirmed(kafka, 2)
        return control_events(await as_undisturbed(kafka))

    events = asyncio.run(run())
    assert events.count("rollout.started") == events.count("rollout.rolled_back") == 2
    assert events[-3:] == ROLLED_BACK


def test_a_lost_checkpoint_is_rebuilt_from_the_log(kafka: KafkaSettings, launch: Launch) -> None:
    """Without its checkpoints the monitor says so, folds the log again, and repeats nothing."""
    monitor = launch("monitor", kafka=kafka)

    async def run() -> list[str]:
        nonlocal monitor
        async with Traffic(kafka, "shop").flowing() as traffic:
            await ask(kafka, Command.START, "shop")
            await traffic.until_stage(1)
            end = await log_end(kafka)

            async def acknowledged() -> bool:
                return await committed(kafka) >= end

            await until("some of the log is acknowledged", acknowledged)
            monitor.kill()
            await lose_checkpoints(kafka)
            monitor = launch("monitor", kafka=kafka)
            await traffic.until_stage(2)
            traffic.candidate = HARM
            await until_confirmed(kafka)
        return control_events(await as_undisturbed(kafka))

    events = asyncio.run(run())
    assert events == ["rollout.started", "rollout.advanced", "rollout.advanced", *ROLLED_BACK]
    assert "there is no checkpoint; rebuilding the state from the log, offsets 0 to" in monitor.log


async def lose_checkpoints(kafka: KafkaSettings) -> None:
    """Delete their topic."""
    async with admin(kafka) as client:
        name = checkpoint_topic(kafka)
        assert name in await client.list_topics()
        await client.delete_topics([name])

        async def gone() -> bool:
            return name not in await client.list_topics()

        await until("the checkpoints are gone", gone)


def test_sigterm_in_mid_stream(kafka: KafkaSettings, launch: Launch) -> None:
    """An orderly stop ends with code 0 in the middle of traffic; the next start goes on."""
    monitor = launch("monitor", kafka=kafka)

    async def run() -> list[str]:
        nonlocal monitor
        async with Traffic(kafka, "shop").flowing() as traffic:
            await ask(kafka, Command.START, "shop")
            for stage in (1, 2):
                await traffic.until_stage(stage)
                assert await asyncio.to_thread(monitor.stop) == 0
                assert "Traceback" not in monitor.log
                monitor = launch("monitor", kafka=kafka)
            traffic.candidate = HARM
            await until_confirmed(kafka)
        return control_events(await as_undisturbed(kafka))

    events = asyncio.run(run())
    assert events == ["rollout.started", "rollout.advanced", "rollout.advanced", *ROLLED_BACK]


@pytest.fixture
def two_partitions(kafka: KafkaSettings) -> KafkaSettings:
    """Topics whose log has two partitions."""
    wide = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=f"{kafka.topic_prefix}wide.",
        service_partitions=2,
    )
    asyncio.run(ensure_topics(wide))
    return wide


def test_a_second_monitor_joins_and_leaves(two_partitions: KafkaSettings, launch: Launch) -> None:
    """Two services, one a partition: each has one owner at a time, and its story goes on.

    The second monitor takes a partition over in mid-stream, is killed for good, and gives it back.
    """
    kafka = two_partitions
    services = {"shop": 0, "desk": 1}
    first = launch("monitor", "--monitor-id", "m1", kafka=kafka)

    async def run() -> dict[str, list[str]]:
        async with (
            Traffic(kafka, "shop", 0).flowing() as shop,
            Traffic(kafka, "desk", 1).flowing() as desk,
        ):
            for service, traffic in zip(services, (shop, desk), strict=True):
                await start(service, traffic)
            second = launch("monitor", "--monitor-id", "m2", kafka=kafka)
            await until("m2 owns a partition", lambda: "from log offset" in second.log)
            for traffic in (shop, desk):
                await traffic.until_stage(2)
            second.kill()
            for traffic in (shop, desk):
                traffic.candidate = HARM
            await until_confirmed(kafka, 2)
        everything = await as_undisturbed(kafka)
        return {
            service: control_events([one for one in everything if one.key == service.encode()])
            for service in services
        }

    for events in asyncio.run(run()).values():
        assert events == ["rollout.started", "rollout.advanced", "rollout.advanced", *ROLLED_BACK]
    assert first.code is None


async def start(service: str, traffic: Traffic) -> None:
    """Start a rollout by the log itself: where a command's key belongs is not what is tested."""
    await traffic.command(Command.START, id=f"start-{service}")
    await traffic.until_phase(Phase.PROGRESSING)


def test_a_broker_that_restarts(tmp_path: Path, launch: Launch) -> None:
    """Kafka goes away in mid-rollout and comes back with its data: the monitor goes on."""
    with EmbeddedKafka(data_dir=tmp_path / "kafka") as first:
        port = first.port
        kafka = KafkaSettings(
            bootstrap_servers=first.bootstrap_servers,
            topic_prefix="b.",
            prompt_partitions=1,
            service_partitions=1,
        )
        asyncio.run(ensure_topics(kafka))
        monitor = launch("monitor", kafka=kafka)
        traffic = Traffic(kafka, "shop")

        async def before() -> None:
            async with traffic.flowing():
                await ask(kafka, Command.START, "shop")
                await traffic.until_stage(1)

        asyncio.run(before())
    with EmbeddedKafka(data_dir=tmp_path / "kafka", port=port):

        async def after() -> list[str]:
            async with traffic.flowing():
                await traffic.until_stage(2)
                traffic.candidate = HARM
                await until_confirmed(kafka)
            return control_events(await as_undisturbed(kafka))

        events = asyncio.run(after())
        assert events == ["rollout.started", "rollout.advanced", "rollout.advanced", *ROLLED_BACK]
        assert monitor.code is None
