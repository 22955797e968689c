"""How to reach Kafka: the one setting that all processes share."""

from __future__ import annotations

import msgspec

from schemas.topics import Topic, Topics

__all__ = ["KafkaSettings"]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and how our topics are made there."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, comma-separated."""
    topic_prefix: str = ""
    """Put before every topic, group and transactional id, so that installations can share a
    broker."""
    prompt_partitions: int = 4
    """Partitions of the prompt topics: the most analyzers that can share the work."""
    service_partitions: int = 4
    """Partitions of the log and what follows from it: the most monitors that can share it."""
    replication_factor: int = 1

    def topic(self, topic: Topic) -> str:
        """A topic's full name."""
        return Topics(self.topic_prefix).name(topic)

    def partitions(self, spread: str) -> int:
        """Partitions of a topic by its spread, see :class:`schemas.topics.TopicSpec`."""
        return self.prompt_partitions if spread == "prompts" else self.service_partitions
