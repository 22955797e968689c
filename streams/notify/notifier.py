"""The process that delivers: one consumer group a channel, so that none waits for another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition

from schemas import cloudevents
from schemas.control import AlertEvent, AlertUndelivered
from schemas.errors import DecodeError
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.errors import DeliveryError
from streams.notify.channels import Channel

__all__ = ["RETRY_SECONDS", "Notifier"]

log = logging.getLogger("driftgate.notifier")

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0)
"""Pauses before another attempt; after the last one the alert goes to the dead letter topic."""
_SOURCE = "/driftgate/notifier"


class Notifier:
    """Delivers alerts by every channel until it is stopped.

    An alert is committed when it was delivered, or stands in `driftgate.undelivered`. A crash in
    between delivers it again: at least once, with the same key and times.

    Args:
        kafka: where.
        channels: the ways; at least one.
        retry_seconds: pauses between attempts.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        channels: Sequence[Channel],
        *,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self._kafka = kafka
        self._channels = channels
        self._retry_seconds = retry_seconds
        self._stopping = asyncio.Event()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True
        )

    def stop(self) -> None:
        """End after the attempts that are under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Deliver until stopped.

        Raises:
            aiokafka.errors.KafkaError: the broker does not take part any more.
        """
        await self._producer.start()
        try:
            async with asyncio.TaskGroup() as group:
                for channel in self._channels:
                    group.create_task(self._serve(channel), name=channel.name)
        finally:
            await self._producer.stop()

    async def _serve(self, channel: Channel) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            group_id=f"{self._kafka.topic_prefix}driftgate-notifier-{channel.name}",
            enable_auto_commit=False,
            # A channel that is new begins with what happens next, not with the past week.
            auto_offset_reset="latest",
            # Delivering one alert may take all of its attempts, and a channel reads nothing then.
            max_poll_interval_ms=round(
                1000 * (sum(self._retry_seconds) + 60 * (len(self._retry_seconds) + 1))
            ),
        )
        consumer.subscribe([self._kafka.topic(Topic.ALERTS)], listener=_Marking(consumer))
        await consumer.start()
        log.info("alerts go to %s", channel.name)
        try:
            while not self._stopping.is_set():
                # One at a time: a crash repeats no more than that.
                found = await consumer.getmany(timeout_ms=200, max_records=1)
                for tp, records in found.items():
                    for record in records:
                        if await self._deliver(channel, record.value):
                            await consumer.commit({tp: record.offset + 1})
        finally:
            await consumer.stop()

    async def _deliver(self, channel: Channel, value: bytes | None) -> bool:
        """Whether an alert is done with; False when stopped before."""
        try:
            event = cloudevents.decode_json(value, AlertEvent)
        except DecodeError as error:
            log.error("a record of %s is no alert and is passed over: %s", Topic.ALERTS, error)
            return True
        if not channel.wants(event):
            return True
        error_text = ""
        for attempt, pause_s in enumerate((0.0, *self._retry_seconds), start=1):
            if pause_s and await self._stopped_within(pause_s):
                return False
            try:
                await channel.send(event)
            except DeliveryError as error:
                error_text = str(error)
                log.warning(
                    "%s did not take %s (%s), attempt %d: %s",
                    channel.name, event.key, event.status, attempt, error,
                )  # fmt: skip
                continue
            log.info("%s: %s (%s)", channel.name, event.key, event.status)
            return True
        await self._give_up(channel, event, error_text)
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _give_up(self, channel: Channel, event: AlertEvent, error: str) -> None:
        attempts = len(self._retry_seconds) + 1
        log.error(
            "%s could not be told of %s in %d attempts; it stands in %s",
            channel.name, event.key, attempts, Topic.UNDELIVERED,
        )  # fmt: skip
        letter = AlertUndelivered(
            id=f"{event.id}/{channel.name}",
            service=event.service,
            channel=channel.name,
            attempts=attempts,
            error=error[:1000],
            alert=event,
        )
        await self._producer.send_and_wait(
            self._kafka.topic(Topic.UNDELIVERED),
            key=event.service.encode(),
            value=cloudevents.encode_json(letter),
            headers=cloudevents.headers(
                letter,
                id=letter.id,
                source=_SOURCE,
                subject=event.service,
                time_ms=time.time_ns() // 1_000_000,
            ),
        )


class _Marking(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Commits where a new channel begins, so that it goes on from there after a restart."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing: each alert is committed when it is done with."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Commit the position of partitions that have none yet."""
        fresh = {tp: 0 for tp in assigned if await self._consumer.committed(tp) is None}
        for tp in fresh:
            fresh[tp] = await self._consumer.position(tp)
        if fresh:
            await self._consumer.commit(fresh)
