"""Keeps the checkpoints of the fold in a compacted topic, read whole at each take-over.

Not a Faust table: its recovery was seen to wait for ever for a changelog that another monitor had
written to before it died, and nothing but a restart helped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.settings import KafkaSettings
from streams.kafka_io import KafkaIO

__all__ = ["KafkaCheckpoints", "checkpoint_topic"]

_CONFIG = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    # What is read at a take-over: the segment that is written to is never compacted. A busy
    # service writes up to 100 KB a second, so this is several minutes of it, read in a second.
    "segment.bytes": str(32 * 2**20),
    "max.message.bytes": str(4 * 2**20),
}


def checkpoint_topic(kafka: KafkaSettings) -> str:
    """The name of the topic; its partitions are those of the log."""
    return f"{kafka.topic_prefix}driftgate.checkpoints"


class KafkaCheckpoints:
    """Values by key for each partition of the log.

    Args:
        kafka: where.
        io: connected when first used; whoever made it stops it.
    """

    def __init__(self, kafka: KafkaSettings, io: KafkaIO) -> None:
        self._kafka = kafka
        self._topic = checkpoint_topic(kafka)
        self._io = io
        self._exists = False

    async def load(self, partition: int) -> dict[bytes, bytes]:
        """The newest value of each key."""
        await self._create()
        values: dict[bytes, bytes] = {}
        async for record in self._io.read(self._topic, partition, start=0):
            if record.key is not None and record.value is not None:
                values[record.key] = record.value
        return values

    async def save(self, partition: int, values: Mapping[bytes, bytes]) -> None:
        """Write values, in their order, and wait until all are delivered."""
        await self._create()
        futures = [
            await self._io.send(self._topic, partition, key, value) for key, value in values.items()
        ]
        await asyncio.gather(*futures)

    async def _create(self) -> None:
        if self._exists:
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await admin.start()
        try:
            topic = NewTopic(
                self._topic,
                self._kafka.service_partitions,
                self._kafka.replication_factor,
                topic_configs=_CONFIG,
            )
            response = await admin.create_topics([topic])
        finally:
            await admin.close()
        for _, code, message in (tuple(error)[:3] for error in response.topic_errors):
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"topic {self._topic} could not be created: {message}")
        self._exists = True
