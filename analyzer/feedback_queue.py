"""Feedback that waits for the event that it is about, in the order of its source partition.

The log counts each piece of feedback by its place in `prompts.feedback`: within a partition what
comes later must not be appended first, or what came before would be taken for a repetition. So a
piece that cannot be judged yet holds back those behind it in its partition, for a bounded time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from analyzer.feedback import Attributed, FeedbackError, read_feedback, rejection
from analyzer.served import Served, ServedTable
from schemas.feedback import FeedbackGiven, FeedbackRejected, FeedbackRejectionCode
from schemas.prompts import SourcePosition

__all__ = ["Accepted", "FeedbackQueue", "FeedbackRecord", "Judged", "Reach", "Rejected"]


class FeedbackRecord(NamedTuple):
    """A record of `prompts.feedback` as the broker has it."""

    source: SourcePosition
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Reach(NamedTuple):
    """How far the table of what was served was read."""

    at_end: bool
    """To all that was committed when it was asked for, after the feedback had been read."""
    to_ms: int = 0
    """Else: everything up to this time, by the broker's clock."""


class Accepted(NamedTuple):
    """Feedback that counts."""

    attributed: Attributed
    timestamp_ms: int
    by_table: bool
    """Its attribution was looked up."""
    served: Served | None
    """The event, where it is remembered."""


class Rejected(NamedTuple):
    """Feedback that does not."""

    letter: FeedbackRejected
    timestamp_ms: int
    key: bytes | None


class Judged(NamedTuple):
    """What became of the feedback that was ready."""

    accepted: list[Accepted]
    rejected: list[Rejected]
    next_offsets: dict[int, int]
    """The next offset to read of each partition that something was taken from."""


class _Waiting(NamedTuple):
    record: FeedbackRecord
    """Without the value, of which there may be a megabyte."""
    given: FeedbackGiven | FeedbackRejected
    payload: bytes | None
    since_s: float


class FeedbackQueue:
    """What was read of `prompts.feedback` and not judged yet.

    Args:
        capacity: records of a partition beyond which no more should be read.
        late_seconds: how long an event may come after its feedback.
    """

    def __init__(self, capacity: int, late_seconds: float) -> None:
        self._capacity = capacity
        self._late_s = late_seconds
        self._late_ms = round(late_seconds * 1000)
        self._waiting: dict[int, deque[_Waiting]] = {}

    def __len__(self) -> int:
        return sum(len(each) for each in self._waiting.values())

    def clear(self) -> None:
        """Forget all, because it will be read again."""
        self._waiting.clear()

    def is_full(self, partition: int) -> bool:
        """Whether no more of a partition should be read now."""
        return len(self._waiting.get(partition, ())) >= self._capacity

    def oldest_ms(self, partition: int) -> int | None:
        """The broker's time of what waits longest in a partition, if anything does."""
        queue = self._waiting.get(partition)
        return queue[0].record.timestamp_ms if queue else None

    def add(self, record: FeedbackRecord, now_s: float) -> None:
        """Take a record.

        Args:
            record: the next one of its partition.
            now_s: monotonic seconds.
        """
        given: FeedbackGiven | FeedbackRejected
        payload = None
        try:
            given = read_feedback(record.value)
            payload = record.value
        except FeedbackError as error:
            given = rejection(record.source, record.value, error)
        waiting = _Waiting(record._replace(value=None), given, payload, now_s)
        self._waiting.setdefault(record.source.partition, deque()).append(waiting)

    def services(self) -> set[str]:
        """The services that waiting feedback says it is about."""
        return {
            each.given.attribution.service
            for queue in self._waiting.values()
            for each in queue
            if isinstance(each.given, FeedbackGiven) and each.given.attribution is not None
        }

    def judge(
        self,
        table: ServedTable,
        reach: Reach,
        services: Collection[str],
        *,
        now_s: float,
        most: int,
    ) -> Judged:
        """Take out what can be judged: of each partition, up to the first that cannot be yet.

        Args:
            table: what was served.
            reach: how far it was read.
            services: those that exist; feedback on another one is on an unknown event.
            now_s: monotonic seconds.
            most: of one partition.
        """
        judged = Judged([], [], {})
        for partition in sorted(self._waiting):
            queue = self._waiting[partition]
            for _ in range(min(most, len(queue))):
                verdict = self._verdict(queue[0], table, reach, services, now_s)
                if verdict is None:
                    break
                done = queue.popleft()
                judged.next_offsets[partition] = done.record.source.offset + 1
                if isinstance(verdict, Accepted):
                    judged.accepted.append(verdict)
                else:
                    judged.rejected.append(verdict)
        return judged

    def _verdict(
        self,
        one: _Waiting,
        table: ServedTable,
        reach: Reach,
        services: Collection[str],
        now_s: float,
    ) -> Accepted | Rejected | None:
        """None: it must wait."""
        record, given = one.record, one.given
        at_ms = record.timestamp_ms
        if isinstance(given, FeedbackRejected):
            return Rejected(given, at_ms, record.key)
        if not (reach.at_end or at_ms <= reach.to_ms):
            return None
        served = table.find(given.event_id, at_ms)
        if given.attribution is not None:
            if given.attribution.service not in services:
                return _unknown(one, given, f"no event of a service {given.attribution.service!r}")
            attributed = Attributed(record.source, given, given.attribution)
            return Accepted(attributed, at_ms, False, served)
        if served is not None:
            attributed = Attributed(record.source, given, served.attribution)
            return Accepted(attributed, at_ms, True, served)
        if reach.at_end:
            waited = now_s - one.since_s >= self._late_s
        else:
            waited = at_ms + self._late_ms <= reach.to_ms
        if not waited:
            return None
        return _unknown(
            one,
            given,
            f"no attribution, and event {given.event_id!r} is not among those that are remembered",
        )


def _unknown(one: _Waiting, given: FeedbackGiven, reason: str) -> Rejected:
    error = FeedbackError(FeedbackRejectionCode.UNKNOWN_EVENT, reason, given.event_id)
    letter = rejection(one.record.source, one.payload, error)
    return Rejected(letter, one.record.timestamp_ms, one.record.key)
