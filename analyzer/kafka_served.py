"""Reads `prompts.enriched` into the table of what was served, in step with feedback.

Feedback and the event that it is about are under different keys, so each curator reads all
partitions, without a group. It never reads far beyond the oldest feedback that waits: in a backlog
of days, events of then would have made room for those of today otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from analyzer.feedback_queue import Reach
from analyzer.served import LEAD, ServedTable, served
from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.prompts import PromptEnriched
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["ServedReader"]

log = logging.getLogger("driftgate.curator")

_WAIT_MS = 200
_CHUNK = 1_000
"""Records at once: a few milliseconds of decoding, in which nothing else runs."""


class ServedReader:
    """Keeps a table filled. Start it, say where it begins, then advance it again and again.

    Args:
        kafka: where.
        table: what is filled.
        entries: that it may have.
        seconds: how far back feedback goes.
        late_seconds: how far an event may come after its feedback.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        table: ServedTable,
        *,
        entries: int,
        seconds: float,
        late_seconds: float,
    ) -> None:
        self._table = table
        self._entries = entries
        self._seconds_ms = round(seconds * 1000)
        self._late_ms = round(late_seconds * 1000)
        topic = kafka.topic(Topic.ENRICHED)
        numbers = range(kafka.partitions("prompts"))
        self._partitions = [TopicPartition(topic, number) for number in numbers]
        self._ahead: dict[TopicPartition, deque[Any]] = {tp: deque() for tp in self._partitions}
        """Records that were fetched, and are beyond what may be taken yet."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=_WAIT_MS,
        )
        self._begun = False
        self.undecodable = 0

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()
        self._consumer.assign(self._partitions)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def advance(self, oldest_ms: int | None, within_s: float) -> Reach | None:
        """Read on.

        Args:
            oldest_ms: the broker's time of the oldest feedback that waits; None: none does, so
                that everything may be read.
            within_s: how long at most.

        Returns:
            How far the table was read, or None when the time was too short: call it again.
        """
        if not self._begun or (oldest_ms is not None and self._table.has_passed(oldest_ms)):
            await self._begin(oldest_ms)
        limit_ms = None if oldest_ms is None else oldest_ms + LEAD * self._late_ms
        if oldest_ms is not None:
            self._table.move_to(oldest_ms)
        deadline = time.monotonic() + within_s
        ends = await self._consumer.end_offsets(self._partitions)
        unread = set(self._partitions)
        stopped = False
        while True:
            for tp in tuple(unread):
                if self._take(tp, limit_ms):
                    stopped = True
                    unread.discard(tp)
                # By position: markers and aborted transactions leave gaps in the offsets.
                elif await self._consumer.position(tp) >= ends[tp]:
                    unread.discard(tp)
            if not unread:
                return Reach(not stopped, limit_ms or 0)
            if time.monotonic() > deadline:
                return None
            found = await self._consumer.getmany(*unread, timeout_ms=_WAIT_MS, max_records=_CHUNK)
            for tp, records in found.items():
                self._ahead[tp].extend(records)
            # Also where all is there already: heartbeats of the group share this loop.
            await asyncio.sleep(0)

    def _take(self, tp: TopicPartition, limit_ms: int | None) -> bool:
        """Whether something is left that is beyond the limit."""
        ahead = self._ahead[tp]
        while ahead:
            record = ahead[0]
            if limit_ms is not None and record.timestamp > limit_ms:
                return True
            ahead.popleft()
            try:
                event = cloudevents.decode_json(record.value, PromptEnriched)
            except DecodeError as error:
                self.undecodable += 1
                log.warning("%s/%d/%d is no enriched event and is passed over: %s",
                            tp.topic, tp.partition, record.offset, error)  # fmt: skip
                continue
            self._table.add(served(event, record.timestamp))
        return False

    async def _begin(self, oldest_ms: int | None) -> None:
        """Go back to where the table that feedback needs begins, and forget what is there."""
        ends = await self._consumer.end_offsets(self._partitions)
        starts = await self._consumer.beginning_offsets(self._partitions)
        if oldest_ms is not None:
            times = {
                "end": oldest_ms + LEAD * self._late_ms,
                "start": max(oldest_ms - self._seconds_ms, 0),
            }
            found = {
                name: await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, at_ms))
                for name, at_ms in times.items()
            }
            for tp in self._partitions:
                # None: all records are older.
                end, start = found["end"][tp], found["start"][tp]
                ends[tp] = min(ends[tp], end.offset) if end else ends[tp]
                starts[tp] = max(starts[tp], start.offset if start else ends[tp])
        for tp in self._partitions:
            # Twice, since each transaction's marker has an offset too. Without an oldest feedback,
            # age is no bound: nothing here knows what time it is on the broker.
            start = max(starts[tp], ends[tp] - 2 * self._entries)
            self._consumer.seek(tp, start)
            self._ahead[tp].clear()
        self._table.clear()
        self._begun = True
        log.info("reading back what was served, to know what feedback is about")
