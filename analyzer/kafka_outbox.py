"""What a curator says: feedback into the log, dead letters, and cases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from analyzer.feedback_queue import Rejected
from analyzer.kafka_discard import discard, see
from schemas import cloudevents
from schemas.feedback import CuratedCase
from schemas.feedback_batch import FeedbackBatch
from schemas.log import encode_log_record
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["Outbox"]

_LINGER_MS = 5
_DELIVERY_MS = 10_000
"""After so long a record counts as not delivered, and everything is read again."""


class Outbox:
    """A plain idempotent producer: transaction markers in the log would stall the monitor.

    Args:
        kafka: where.
        source: of the process, for the events' headers.
    """

    def __init__(self, kafka: KafkaSettings, source: str) -> None:
        self._kafka = kafka
        self._source = source
        self._producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=_LINGER_MS,
            request_timeout_ms=_DELIVERY_MS,
        )

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Give up what is under way, and disconnect."""
        await discard(self._producer)

    async def deliver(
        self,
        batches: Sequence[FeedbackBatch],
        rejected: Sequence[Rejected],
        cases: Sequence[CuratedCase],
    ) -> None:
        """Publish, and wait until all is delivered.

        Raises:
            aiokafka.errors.KafkaError: something was not; use another outbox.
        """
        futures = [
            await self._send(Topic.LOG, batch.service.encode(), encode_log_record(batch))
            for batch in batches
        ]
        for each in rejected:
            letter = each.letter
            headers = cloudevents.headers(
                letter,
                id=letter.id,
                source=self._source,
                # Whose it is nobody knows for sure.
                subject=letter.event_id or letter.id,
                time_ms=each.timestamp_ms,
                extensions={"causationid": letter.source.event_id()},
            )
            value = cloudevents.encode_json(letter)
            futures.append(await self._send(Topic.FEEDBACK_REJECTED, each.key, value, headers))
        for case in cases:
            extensions = {"causationid": case.id}
            if case.rollout_id:
                extensions["correlationid"] = case.rollout_id
            headers = cloudevents.headers(
                case,
                id=f"{case.id}/{case.curated_ms}",
                source=self._source,
                subject=case.service,
                time_ms=case.curated_ms,
                extensions=extensions,
            )
            value = cloudevents.encode_json(case)
            futures.append(await self._send(Topic.CURATED, case.id.encode(), value, headers))
        # All of them, also after one has failed: nothing is under way then.
        ends = await asyncio.gather(*futures, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _send(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes,
        headers: cloudevents.Headers | None = None,
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = await self._producer.send(
            self._kafka.topic(topic), key=key, value=value, headers=headers
        )
        # Also where nobody comes to wait for it, because another one has failed before.
        future.add_done_callback(see)
        return future
