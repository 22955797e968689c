"""The topic table: what each topic holds, how it is keyed, partitioned and kept."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

__all__ = ["TOPICS", "Topic", "TopicSpec", "Topics"]

DAY_MS = 86_400_000


class Topic(StrEnum):
    """Topic names, before the prefix."""

    PROMPTS = "prompts"
    ENRICHED = "prompts.enriched"
    REJECTED = "prompts.rejected"
    FEEDBACK = "prompts.feedback"
    FEEDBACK_REJECTED = "prompts.feedback.rejected"
    CURATED = "prompts.curated"
    COMMANDS = "driftgate.commands"
    LOG = "driftgate.log"
    METRICS = "driftgate.metrics"
    CONTROL = "driftgate.control"
    ROLLOUT = "driftgate.rollout"
    ALERTS = "driftgate.alerts"
    UNDELIVERED = "driftgate.undelivered"


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a topic is made.

    ``spread`` says which setting gives the number of partitions: ``prompts`` topics scale with
    analyzers; ``service`` topics scale with monitors, and all have the same number, so that a
    service is in the same partition of each.
    """

    topic: Topic
    key: str
    content: str
    spread: Literal["prompts", "service"]
    compact: bool = False
    retention_ms: int = 7 * DAY_MS
    max_message_bytes: int = 2**20

    def config(self) -> dict[str, str]:
        """Kafka topic settings.

        Every topic has the broker's own time stamps: a producer's clock decides neither what
        retention deletes nor, in the log, what time the monitor thinks it is.
        """
        config = {
            "cleanup.policy": "compact" if self.compact else "delete",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.compact:
            config["min.cleanable.dirty.ratio"] = "0.1"
        else:
            config["retention.ms"] = str(self.retention_ms)
        return config


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        topic=Topic.PROMPTS,
        key="the producer's",
        content="PromptSubmitted (in)",
        spread="prompts",
        # Larger than any prompt that is accepted, so that a prompt that is too long is rejected
        # by us with a reason and not by the broker with an exception.
        max_message_bytes=4 * 2**20,
    ),
    TopicSpec(
        topic=Topic.ENRICHED, key="as in prompts", content="PromptEnriched", spread="prompts"
    ),
    TopicSpec(
        topic=Topic.REJECTED, key="as in prompts", content="PromptRejected", spread="prompts"
    ),
    TopicSpec(
        topic=Topic.FEEDBACK, key="the event's id", content="FeedbackGiven (in)", spread="prompts"
    ),
    TopicSpec(
        topic=Topic.FEEDBACK_REJECTED,
        key="as in prompts.feedback",
        content="FeedbackRejected",
        spread="prompts",
    ),
    TopicSpec(
        topic=Topic.CURATED,
        key="the event's id",
        content="CuratedCase",
        spread="prompts",
        compact=True,
    ),
    TopicSpec(
        topic=Topic.COMMANDS, key="service", content="OperatorCommand (in)", spread="service"
    ),
    TopicSpec(
        topic=Topic.LOG,
        key="service",
        content=(
            "MeasurementBatch, FeedbackBatch, Heartbeat, CommandRecord, CommandUnreadable, Tick"
        ),
        spread="service",
        retention_ms=90 * DAY_MS,
    ),
    TopicSpec(
        topic=Topic.METRICS, key="service", content="WindowMetrics, GateStatus", spread="service"
    ),
    TopicSpec(
        topic=Topic.CONTROL,
        key="service",
        content="ControlEvent",
        spread="service",
        retention_ms=365 * DAY_MS,
    ),
    TopicSpec(
        topic=Topic.ROLLOUT, key="service", content="RolloutState", spread="service", compact=True
    ),
    TopicSpec(topic=Topic.ALERTS, key="service", content="AlertEvent", spread="service"),
    TopicSpec(
        topic=Topic.UNDELIVERED,
        key="service",
        content="AlertUndelivered",
        spread="service",
        retention_ms=90 * DAY_MS,
    ),
)


class Topics(msgspec.Struct, frozen=True):
    """Full topic names under a prefix."""

    prefix: str = ""

    def name(self, topic: Topic) -> str:
        """The name on the broker."""
        return f"{self.prefix}{topic.value}"
