"""Gets the results of a batch into Kafka: one transaction, after the measurement is delivered.

The measurement batch goes by a second, plain producer, because transaction markers in the log would
stall the monitor's commits. It is delivered before the transaction commits: if the transaction then
aborts, the retry carries the same source offsets, and the monitor counts none twice.

After any failure both producers are replaced: aiokafka's cannot go on after a record that the
broker refused (its sequence numbers have a gap then) or a transaction that the broker has given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder

from analyzer.errors import WorkerFencedError
from analyzer.kafka_discard import discard, see
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
_MAX_REQUEST_BYTES = 4 * 2**20
_BATCH_BYTES = 2**18
"""Of a Kafka batch. aiokafka's 16 KiB hold a dozen results, and the next dozen waits for the
broker's answer; topics take 1 MiB."""


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
        self._connect()

    def _connect(self) -> None:
        settings = self._settings
        common: dict[str, Any] = {
            "bootstrap_servers": settings.kafka.bootstrap_servers,
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": _MAX_REQUEST_BYTES,
            "max_batch_size": _BATCH_BYTES,
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
            self._consumer,
            settings.group_id,
            settings.worker_id if settings.static_member else None,
        )

    async def start(self) -> None:
        """Connect, and fence any older process of the same worker."""
        await self._log_producer.start()
        await self._producer.start()

    async def stop(self) -> None:
        """Give up what is under way, and disconnect."""
        await asyncio.gather(discard(self._producer), discard(self._log_producer))

    async def renew(self) -> None:
        """Connect anew after a failed delivery; the broker aborts what was left open.

        Raises:
            aiokafka.errors.KafkaError: the broker cannot be reached yet; call it again.
        """
        await self.stop()
        self._connect()
        await self.start()

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
            aiokafka.errors.KafkaError: the batch is not known to be committed; call
                :meth:`renew`, and go on from the committed offsets.
            WorkerFencedError: another process has taken this worker's id.
        """
        if self._settings.delivery is Delivery.AT_LEAST_ONCE:
            await self._publish(results, measured)
            await self._consumer.commit(dict(offsets))
            return
        began = time.monotonic()
        try:
            await self._producer.begin_transaction()
            await self._publish(results, measured)
            await self._transactions.send_offsets(offsets)
            await self._producer.commit_transaction()
        except (ProducerFenced, InvalidProducerEpoch) as error:
            # The broker says the same to a transaction that it gave up because it took too long.
            if (time.monotonic() - began) * 1000 >= TRANSACTION_TIMEOUT_MS:
                raise KafkaError("the transaction took too long, and the broker gave it up") from (
                    error
                )
            raise WorkerFencedError(
                f"another process runs as worker {self._settings.worker_id!r}: stop one of them, "
                "or give each its own id (DRIFTGATE_WORKER_ID)"
            ) from error

    async def _publish(self, results: Sequence[Result], measured: MeasurementBatch) -> None:
        futures = [await self._send(*each) for each in self._batches(results)]
        # All of them, also after one has failed: what is in the log is known then.
        ends = await asyncio.gather(*futures, self.append(measured), return_exceptions=True)
        errors = [end for end in ends if isinstance(end, BaseException)]
        for error in sorted(errors, key=lambda each: not isinstance(each, ProducerFenced)):
            raise error

    def _batches(self, results: Sequence[Result]) -> list[tuple[str, int, BatchBuilder]]:
        """Results as Kafka's batches, with topic and partition; records in their order.

        Batches of our own, because a call of the producer a record costs more than all else that
        is done with it. A result stands in the partition of its prompt, and so behind the results
        of the same key's earlier prompts, whatever partitions prompts are given.
        """
        batches: list[tuple[str, int, BatchBuilder]] = []
        filling: dict[tuple[str, int], BatchBuilder] = {}
        for result in results:
            event = result.event
            enriched = isinstance(event, PromptEnriched)
            topic = self._settings.kafka.topic(Topic.ENRICHED if enriched else Topic.REJECTED)
            place = (topic, event.source.partition)
            record = self._record(result)
            if place not in filling or filling[place].append(**record) is None:
                filling[place] = self._producer.create_batch()
                filling[place].append(**record)
                batches.append((*place, filling[place]))
        return batches

    def _record(self, result: Result) -> dict[str, Any]:
        event = result.event
        extensions = {"causationid": event.source.event_id()}
        if isinstance(event, PromptEnriched) and event.assignment.rollout_id:
            extensions["correlationid"] = event.assignment.rollout_id
        return {
            "timestamp": None,
            "key": result.key,
            "value": cloudevents.encode_json(event),
            "headers": cloudevents.headers(
                event,
                id=event.id,
                source=self._source,
                subject=event.service,
                time_ms=result.time_ms,
                extensions=extensions,
            ),
        }

    async def _send(self, topic: str, partition: int, batch: BatchBuilder) -> asyncio.Future[Any]:
        batch.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(
            batch, topic, partition=partition
        )
        # Also where nobody comes to wait for it, because another one has failed before.
        future.add_done_callback(see)
        return future
