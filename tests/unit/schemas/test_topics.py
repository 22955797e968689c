"""The topic table and the settings that make topics of it."""

from __future__ import annotations

import pytest

from schemas.settings import KafkaSettings
from schemas.topics import DAY_MS, TOPICS, Topic, Topics, TopicSpec

BY_TOPIC = {spec.topic: spec for spec in TOPICS}
every_topic = pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic.value)


def test_every_topic_is_specified_once() -> None:
    """The names and the table are of the same topics."""
    assert [spec.topic for spec in TOPICS] == list(BY_TOPIC)
    assert set(BY_TOPIC) == set(Topic)


@every_topic
def test_the_broker_stamps_every_topic(spec: TopicSpec) -> None:
    """A producer's clock decides neither retention nor the monitor's time, and is never trusted."""
    assert spec.config()["message.timestamp.type"] == "LogAppendTime"


@every_topic
def test_clean_up_is_either_by_age_or_by_key(spec: TopicSpec) -> None:
    """A topic that keeps the last state of each key never loses it to its age."""
    config = spec.config()
    assert all(isinstance(value, str) for value in config.values()), "Kafka settings are texts"
    if spec.compact:
        assert config["cleanup.policy"] == "compact"
        assert "retention.ms" not in config
    else:
        assert config["cleanup.policy"] == "delete"
        assert int(config["retention.ms"]) == spec.retention_ms > 0


def test_what_decisions_can_be_recomputed_from_is_kept_longer() -> None:
    """The log is kept 90 days, what was decided a year, the state for good."""
    assert BY_TOPIC[Topic.LOG].retention_ms == 90 * DAY_MS
    assert BY_TOPIC[Topic.CONTROL].retention_ms == 365 * DAY_MS
    assert BY_TOPIC[Topic.ROLLOUT].compact


def test_prompts_take_more_than_is_analysed() -> None:
    """A prompt above the limit of other topics reaches us, so that we reject it with a reason."""
    assert BY_TOPIC[Topic.PROMPTS].max_message_bytes == 4 * 2**20
    assert int(BY_TOPIC[Topic.ENRICHED].config()["max.message.bytes"]) == 2**20


def test_topics_of_a_service_share_their_partitioning() -> None:
    """What is keyed by service has one number of partitions, so that a service has one owner."""
    settings = KafkaSettings(prompt_partitions=6, service_partitions=3)
    for spec in TOPICS:
        expected = 6 if spec.topic.value.startswith("prompts") else 3
        assert settings.partitions(spec.spread) == expected, spec.topic


def test_a_prefix_is_put_before_every_name() -> None:
    """Installations that share a broker do not share topics."""
    settings = KafkaSettings(topic_prefix="team-a.")
    for topic in Topic:
        assert settings.topic(topic) == Topics("team-a.").name(topic) == f"team-a.{topic.value}"
    assert KafkaSettings().topic(Topic.PROMPTS) == "prompts"
