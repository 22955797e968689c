"""What a curator must know of others: drift alarms, cases that were made, and services."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from analyzer.casebook import Casebook
from analyzer.drift_alarms import DriftAlarms
from schemas import cloudevents
from schemas.control import DriftCleared, DriftDetected
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["Followed", "ServiceDirectory"]

log = logging.getLogger("driftgate.curator")

_WAIT_MS = 200
_DRIFT = {f"driftgate.{kind.__struct_config__.tag}.v1" for kind in (DriftDetected, DriftCleared)}
_ASK_AGAIN_S = 5.0
"""Between two questions for the services: one that is new is known by its events before that."""


class Followed:
    """Follows `driftgate.control` and `prompts.curated`, without a group.

    Args:
        kafka: where.
        alarms: are told of drift.
        book: is told of cases.
        remembered: cases that are read back at the start.
        source: of this process: its own cases are known already.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        alarms: DriftAlarms,
        book: Casebook,
        *,
        remembered: int,
        source: str,
    ) -> None:
        self._alarms = alarms
        self._book = book
        self._remembered = remembered
        self._source = source
        self._control = kafka.topic(Topic.CONTROL)
        self._curated = kafka.topic(Topic.CURATED)
        self._partitions = [
            TopicPartition(topic, number)
            for topic, spread in ((self._control, "service"), (self._curated, "prompts"))
            for number in range(kafka.partitions(spread))
        ]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_WAIT_MS,
        )

    async def start(self) -> None:
        """Read all alarms and the last cases, before anything is made of them."""
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        starts = await self._consumer.beginning_offsets(self._partitions)
        for tp, start in starts.items():
            recent = ends[tp] - self._remembered if tp.topic == self._curated else 0
            self._consumer.seek(tp, max(start, recent))
        cases: dict[str, CuratedCase] = {}
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            for record in await self._read(_WAIT_MS):
                if self._is_tombstone(record):
                    cases.pop(_id_of(record), None)
                elif (case := self._decoded(record)) is not None:
                    cases[case.id] = case
        # Partitions are read side by side, and the newest cases are to be remembered.
        for case in sorted(cases.values(), key=lambda each: each.curated_ms):
            self._book.learn(case)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def poll(self) -> list[CuratedCase]:
        """Take note of what has come; does not wait.

        Returns:
            Cases that another curator made without knowing of a reason of ours: to be made again.
        """
        merged = []
        for record in await self._read(0):
            if self._is_tombstone(record):
                self._book.forget(_id_of(record))
                continue
            case = self._decoded(record)
            own = cloudevents.attributes(record.headers).get("source") == self._source
            if case is not None and not own:
                joined = self._book.learn(case)
                if joined is not None:
                    merged.append(joined)
        return merged

    async def _read(self, timeout_ms: int) -> list[Any]:
        found = await self._consumer.getmany(timeout_ms=timeout_ms)
        return [record for records in found.values() for record in records]

    def _is_tombstone(self, record: Any) -> bool:
        return record.topic == self._curated and record.value is None

    def _decoded(self, record: Any) -> CuratedCase | None:
        """The case of a record; one about drift is taken note of."""
        try:
            if record.topic == self._curated:
                return cloudevents.decode_json(record.value, CuratedCase)
            if cloudevents.attributes(record.headers).get("type") in _DRIFT:
                event = cloudevents.decode_json(record.value, cloudevents.CONTROL_EVENT)
                self._alarms.take(event)
        except DecodeError as error:
            log.warning("%s/%d/%d cannot be read and is passed over: %s",
                        record.topic, record.partition, record.offset, error)  # fmt: skip
        return None


def _id_of(record: Any) -> str:
    return (record.key or b"").decode("utf-8", "replace")


class ServiceDirectory:
    """The services that there are: those whose analyzers have a consumer group.

    Args:
        kafka: where.
        monotonic: seconds.
    """

    def __init__(
        self, kafka: KafkaSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._kafka = kafka
        self._prefix = f"{kafka.topic_prefix}driftgate-analyzer-"
        self._monotonic = monotonic
        self._asked_s = float("-inf")
        self.services: set[str] = set()

    async def refresh(self) -> None:
        """Ask the broker, unless that was done just now."""
        if self._monotonic() - self._asked_s < _ASK_AGAIN_S:
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        try:
            await admin.start()
            groups = await admin.list_consumer_groups()
        finally:
            await admin.close()
        names = (name for name, *_ in groups)
        self.services |= {
            name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)
        }
        self._asked_s = self._monotonic()
