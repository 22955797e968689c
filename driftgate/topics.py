"""Creates the topics at the start, and refuses to run on topics that are not as they must be."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from driftgate.errors import DriftgateError, Exit, TopicMismatchError
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, TopicSpec

__all__ = ["TopicCheck", "check_topics", "ensure_topics"]

_CHECKED = ("cleanup.policy", "message.timestamp.type")
"""Topic settings that change what our code means; the others are the operator's choice."""


MISSING = "is missing"
VISIBLE_TIMEOUT_S = 10.0
"""A topic that was created and is not listed by then was not created."""


class TopicCheck(NamedTuple):
    """How a topic stands."""

    name: str
    problem: str | None
    """None when it is as it must be."""
    cure: str = ""


async def ensure_topics(kafka: KafkaSettings) -> list[str]:
    """Create what is missing, then check everything; returns the names of the created topics.

    Raises:
        TopicMismatchError: a topic exists with other partitions or another meaning.
        DriftgateError: a topic could not be created.
    """
    try:
        return await _ensure(kafka)
    except KafkaError as error:
        raise DriftgateError(
            f"the topics cannot be made at {kafka.bootstrap_servers} ({error!r}); start the broker "
            "(`driftgate broker`), or say where Kafka is (DRIFTGATE_BOOTSTRAP_SERVERS)",
            Exit.BROKER,
        ) from error


async def _ensure(kafka: KafkaSettings) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [spec for spec in TOPICS if kafka.topic(spec.topic) not in existing]
        for spec in missing:
            await _create(admin, kafka, spec)
        deadline = time.monotonic() + VISIBLE_TIMEOUT_S
        while True:
            checks = await _check(admin, kafka)
            # A new topic is known to the controller before every broker lists it.
            unseen = any(check.problem == MISSING for check in checks)
            if not unseen or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
    finally:
        await admin.close()
    wrong = [check for check in checks if check.problem]
    if wrong:
        raise TopicMismatchError("\n".join(f"topic {c.name}: {c.problem}. {c.cure}" for c in wrong))
    return [kafka.topic(spec.topic) for spec in missing]


async def check_topics(kafka: KafkaSettings) -> list[TopicCheck]:
    """How every topic stands; nothing is changed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        return await _check(admin, kafka)
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, kafka: KafkaSettings, spec: TopicSpec) -> None:
    name = kafka.topic(spec.topic)
    response = await admin.create_topics(
        [
            NewTopic(
                name,
                kafka.partitions(spec.spread),
                kafka.replication_factor,
                topic_configs=spec.config(),
            )
        ]
    )
    for _, code, message in (tuple(error)[:3] for error in response.topic_errors):
        error = for_code(code)
        # Another process that starts at the same time was first.
        if code and error is not TopicAlreadyExistsError:
            raise DriftgateError(
                f"topic {name} could not be created: {message or error.__name__}", Exit.BROKER
            )


async def _check(admin: AIOKafkaAdminClient, kafka: KafkaSettings) -> list[TopicCheck]:
    existing = set(await admin.list_topics())
    names = [kafka.topic(spec.topic) for spec in TOPICS]
    present = [name for name in names if name in existing]
    partitions = {
        topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(present)
    } if present else {}  # fmt: skip
    configs = await _configs(admin, present)
    checks = []
    for spec, name in zip(TOPICS, names, strict=True):
        wanted = kafka.partitions(spec.spread)
        config = configs.get(name, {})
        different = [
            f"{key} is {config.get(key)!r} and must be {value!r}"
            for key, value in spec.config().items()
            if key in _CHECKED and config.get(key) != value
        ]
        if name not in existing:
            checks.append(
                TopicCheck(name, MISSING, "start an analyzer or the monitor: they create it")
            )
        elif partitions[name] != wanted:
            variable = (
                "DRIFTGATE_PROMPT_PARTITIONS"
                if spec.spread == "prompts"
                else "DRIFTGATE_SERVICE_PARTITIONS"
            )
            checks.append(
                TopicCheck(
                    name,
                    f"has {partitions[name]} partitions, the settings say {wanted}",
                    f"Set {variable} to what the topics have, or use another "
                    "DRIFTGATE_TOPIC_PREFIX",
                )
            )
        elif different:
            checks.append(
                TopicCheck(
                    name,
                    "; ".join(different),
                    "Alter the topic with kafka-configs, or use another DRIFTGATE_TOPIC_PREFIX",
                )
            )
        else:
            checks.append(TopicCheck(name, None))
    return checks


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, Any]]:
    if not names:
        return {}
    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    )
    found: dict[str, dict[str, Any]] = {}
    for response in responses:
        for resource in response.resources:
            _, _, _, name, entries = resource[:5]
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found
