"""Topics are made once, as they must be, and nothing runs on others."""

from __future__ import annotations

import asyncio
import uuid

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from driftgate.broker import Broker
from driftgate.errors import DriftgateError, Exit, TopicMismatchError
from driftgate.topics import check_topics, ensure_topics
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic
from tests.support.processes import Launch


@pytest.fixture
def fresh(broker: Broker) -> KafkaSettings:
    """Settings whose topics are not there yet."""
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"t-{uuid.uuid4().hex[:8]}.",
        prompt_partitions=3,
        service_partitions=2,
    )


async def test_topics_are_made_as_the_table_says(fresh: KafkaSettings) -> None:
    """All topics are there afterwards, and asking again makes none."""
    assert all(check.problem == "is missing" for check in await check_topics(fresh))
    created = await ensure_topics(fresh)
    assert created == [fresh.topic(spec.topic) for spec in TOPICS]
    assert [check.problem for check in await check_topics(fresh)] == [None] * len(TOPICS)
    assert await ensure_topics(fresh) == []


async def test_topics_can_be_made_by_several_at_once(fresh: KafkaSettings) -> None:
    """Processes that start together all find the topics, each made by one of them."""
    several = await asyncio.gather(*(ensure_topics(fresh) for _ in range(6)))
    assert [check.problem for check in await check_topics(fresh)] == [None] * len(TOPICS)
    assert {name for names in several for name in names} == {
        fresh.topic(spec.topic) for spec in TOPICS
    }


def test_processes_that_start_at_once_share_the_topics(
    fresh: KafkaSettings, launch: Launch
) -> None:
    """Three workers on an empty broker all come up."""
    workers = [launch("analyzer", kafka=fresh, DRIFTGATE_MODEL="/nonexistent") for _ in range(3)]
    for worker in workers:
        worker.wait_for_log("waiting for prompts")
    for worker in workers:
        worker.terminate()
    assert [worker.wait() for worker in workers] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        ({"prompt_partitions": 4}, "DRIFTGATE_PROMPT_PARTITIONS"),
        ({"service_partitions": 1}, "DRIFTGATE_SERVICE_PARTITIONS"),
    ],
)
async def test_other_partitions_are_refused(
    fresh: KafkaSettings, change: dict[str, int], variable: str
) -> None:
    """A mismatch names the topic, both numbers, and the variable to set."""
    await ensure_topics(fresh)
    other = msgspec.structs.replace(fresh, **change)
    with pytest.raises(TopicMismatchError, match=variable) as caught:
        await ensure_topics(other)
    assert caught.value.code == Exit.BROKER
    [wanted] = change.values()
    has = fresh.partitions("prompts" if "prompt_partitions" in change else "service")
    assert f"has {has} partitions, the settings say {wanted}" in str(caught.value)


def test_worker_does_not_run_on_other_partitions(kafka: KafkaSettings, launch: Launch) -> None:
    """The process ends with its exit code and the cure, and without a traceback."""
    other = msgspec.structs.replace(kafka, prompt_partitions=5)
    worker = launch("analyzer", kafka=other)
    assert worker.wait() == Exit.BROKER
    assert "DRIFTGATE_PROMPT_PARTITIONS" in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    "config",
    [{"cleanup.policy": "compact"}, {"message.timestamp.type": "CreateTime"}],
    ids=["compacted", "producer's time"],
)
async def test_topic_of_another_meaning_is_refused(
    fresh: KafkaSettings, config: dict[str, str]
) -> None:
    """A log that loses records, or whose time producers make up, is not worked on."""
    spec = next(spec for spec in TOPICS if spec.topic is Topic.LOG)
    admin = AIOKafkaAdminClient(bootstrap_servers=fresh.bootstrap_servers)
    await admin.start()
    name = fresh.topic(Topic.LOG)
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=spec.config() | config)])
    await admin.close()
    [(key, value)] = config.items()
    with pytest.raises(TopicMismatchError, match=f"{name}: {key} is '{value}'.*kafka-configs"):
        await ensure_topics(fresh)


async def test_impossible_topics_are_refused_with_the_reason(fresh: KafkaSettings) -> None:
    """A replication factor that the cluster cannot keep is an error that says so."""
    greedy = msgspec.structs.replace(fresh, replication_factor=9)
    with pytest.raises(DriftgateError, match=r"(?i)replication factor") as caught:
        await ensure_topics(greedy)
    assert caught.value.code == Exit.BROKER


async def test_unreachable_broker_is_our_error() -> None:
    """A broker that goes away between waiting and creating ends with a message, not a traceback."""
    away = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(DriftgateError, match=r"127\.0\.0\.1:1") as caught:
        await ensure_topics(away)
    assert caught.value.code == Exit.BROKER
