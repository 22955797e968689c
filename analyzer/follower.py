"""Follows the compacted rollout topic: the state that this worker obeys."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["RolloutFollower", "initial_state"]

log = logging.getLogger("driftgate.analyzer")

_WAIT_MS = 500
_RETRY_S = 1.0


def initial_state(service: str) -> RolloutState:
    """What holds before the first rollout: rules for everybody."""
    blue = Deployment(name="baseline", kind=DeploymentKind.RULES)
    return RolloutState(service=service, revision=0, phase=Phase.IDLE, blue=blue)


class RolloutFollower:
    """Keeps the newest rollout state of a service.

    Args:
        kafka: where it is.
        service: whose.
    """

    def __init__(self, kafka: KafkaSettings, service: str) -> None:
        self._kafka = kafka
        self._service = service
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = initial_state(service)
        self.changed = asyncio.Event()
        """Set when the state has changed; whoever acts on it clears it."""

    async def start(self) -> None:
        """Read the topic to its end, so that no prompt is routed by an old state; then follow."""
        topic = self._kafka.topic(Topic.ROLLOUT)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_WAIT_MS,
        )
        await consumer.start()
        self._consumer = consumer
        partitions = [TopicPartition(topic, n) for n in range(self._kafka.partitions("service"))]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            self._take(await consumer.getmany(timeout_ms=_WAIT_MS))
        log.info(
            "rollout state: revision %d, %s, green share %g",
            self.state.revision,
            self.state.phase,
            self.state.share,
        )
        self._task = asyncio.create_task(self._follow(consumer))

    def check(self) -> None:
        """Raise what ended the following, if anything did.

        A worker that cannot hear of a rollback must not go on.
        """
        if self._task is not None and self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                self._take(await consumer.getmany(timeout_ms=_WAIT_MS))
            except KafkaError as error:
                log.warning("the rollout topic cannot be read, trying again: %r", error)
                await asyncio.sleep(_RETRY_S)

    def _take(self, found: dict[TopicPartition, list[object]]) -> None:
        for records in found.values():
            for record in records:
                self._apply(record.key, record.value)  # type: ignore[attr-defined]  # untyped

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        if key != self._service.encode() or value is None:
            return
        try:
            state = cloudevents.decode_json(value, RolloutState)
        except DecodeError as error:
            log.error(
                "a rollout state cannot be read and is passed over, staying at revision %d: %s",
                self.state.revision,
                error,
            )
            return
        if state.service != self._service:
            log.error(
                "a rollout state of service %r under the key of %r is passed over, staying at "
                "revision %d",
                state.service,
                self._service,
                self.state.revision,
            )
            return
        self.state = state
        self.changed.set()
