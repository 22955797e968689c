"""Gets the results of a batch into Kafka: one transaction, after the measurement is delivered.

The measurement batch goes by a second, plain producer, because transaction markers in the log would
stall the monitor's commits. It is delivered before the transaction commits: if the transaction then
aborts, the retry carries the same source offsets, and the monitor counts none twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from analyzer.kafka_fencing import FencedTransactions
from analyzer.settings import AnalyzerSettings, Delivery
from schemas import cloudevents
from schemas.log import LogRecord, MeasurementBatch, encode_log_record
from schemas.prompts import PromptEnriched, PromptRejected
from schemas.topics import Topic

__all__ = ["Publisher", "Result"]

TRANSACTION_TIMEOUT_MS = 10_000
"""After so long the broker aborts the transaction of a worker that died: until then readers of
committed records wait. Above the longest delivery, below the patience of a reader."""
_LINGER_MS = 5
_MAX_REQUEST_BYTES = 4 * 2**20


class Result(NamedTuple):
    """An event to publish, with the key and time stamp of the prompt that it is about."""

    event: PromptEnriched | PromptRejected
    key: bytes | None
    time_ms: int


class Publisher:
    """The producers of a worker.

    Args:
        settings: of the worker.
        consumer: whose offsets are committed with the results.
    """

    def __init__(self, settings: AnalyzerSettings, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._source = f"/driftgate/analyzer/{settings.service}/{settings.worker_id}"
        common: dict[str, Any] = {
            "bootstrap_servers": settings.kafka.bootstrap_servers,
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": _LINGER_MS,
            "max_request_size": _MAX_REQUEST_BYTES,
        }
        self._log_producer = AIOKafkaProducer(**common)
        self._producer = AIOKafkaProducer(
            **common,
            **(
                {
                    "transactional_id": settings.transactional_id,
                    "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
                }
                if settings.delivery is Delivery.EXACTLY_ONCE
                else {}
            ),
        )
        self._transactions = FencedTransactions(
            self._producer,
            consumer,
            settings.group_id,
            settings.worker_id if settings.static_member else None,
        )

    async def start(self) -> None:
        """Connect, and fence any older process of the same worker."""
        await self._log_producer.start()
        await self._producer.start()

    async def stop(self) -> None:
        """Flush and disconnect."""
        with contextlib.suppress(Exception):
            # A producer whose transaction failed for good cannot be stopped in order.
            await self._producer.stop()
        await self._log_producer.stop()

    async def append(self, record: LogRecord) -> None:
        """Append a record to the log and wait until it is delivered."""
        await self._log_producer.send_and_wait(
            self._settings.kafka.topic(Topic.LOG),
            key=record.service.encode(),
            value=encode_log_record(record),
        )

    async def deliver(
        self,
        results: Sequence[Result],
        measured: MeasurementBatch,
        offsets: Mapping[TopicPartition, int],
    ) -> None:
        """Publish a batch and commit its offsets; either both are done or neither.

        Args:
            results: one for each prompt.
            measured: their rows.
            offsets: the next offset to read of each source partition.

        Raises:
            aiokafka.errors.KafkaError: nothing was committed; read again from what was.
        """
        if self._settings.delivery is Delivery.AT_LEAST_ONCE:
            await self._publish(results, measured)
            await self._consumer.commit(dict(offsets))
            return
        await self._producer.begin_transaction()
        try:
            await self._publish(results, measured)
            await self._transactions.send_offsets(offsets)
        except BaseException:
            # Also when cancelled: an open transaction blocks every reader of committed records.
            await self._producer.abort_transaction()
            raise
        await self._producer.commit_transaction()

    async def _publish(self, results: Sequence[Result], measured: MeasurementBatch) -> None:
        futures = [await self._send(result) for result in results]
        await asyncio.gather(*futures, self.append(measured))

    async def _send(self, result: Result) -> asyncio.Future[Any]:
        event = result.event
        topic = Topic.ENRICHED if isinstance(event, PromptEnriched) else Topic.REJECTED
        extensions = {"causationid": event.source.event_id()}
        if isinstance(event, PromptEnriched) and event.assignment.rollout_id:
            extensions["correlationid"] = event.assignment.rollout_id
        future: asyncio.Future[Any] = await self._producer.send(
            self._settings.kafka.topic(topic),
            key=result.key,
            value=cloudevents.encode_json(event),
            headers=cloudevents.headers(
                event,
                id=event.id,
                source=self._source,
                subject=event.service,
                time_ms=result.time_ms,
                extensions=extensions,
            ),
        )
        return future
