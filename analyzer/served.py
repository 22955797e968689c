"""What was served lately, by event: feedback without an attribution is looked up here."""

from __future__ import annotations

import heapq
import re

import msgspec

from schemas.feedback import Attribution
from schemas.prompts import PromptEnriched

__all__ = ["KEPT_CHARS", "LEAD", "Served", "ServedTable", "attribution_of", "served"]

KEPT_CHARS = 2_000
"""Of a prompt: the table may hold many."""
LEAD = 2
"""The table is read so many times `late_seconds` beyond the oldest feedback that waits. Above 1, so
that feedback on unknown events is not judged one at a time; each second more is a second of events
that take the place of older ones."""
_LAST_WORD = re.compile(r"\S{1,200}\Z")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """An enriched event, as far as feedback and curation need it."""

    event: PromptEnriched
    """With the prompt cut at `KEPT_CHARS`."""
    at_ms: int
    """When it was published, by the broker's clock."""
    cut: bool = False
    """Whether the prompt is longer than what is kept of it."""

    @property
    def attribution(self) -> Attribution:
        """Whose result it was."""
        return attribution_of(self.event)


def attribution_of(event: PromptEnriched) -> Attribution:
    """The attribution that feedback on an event should carry."""
    assignment = event.assignment
    return Attribution(
        service=event.service,
        arm=assignment.arm,
        deployment=assignment.deployment,
        shadow_deployment=assignment.shadow_deployment,
        rollout_id=assignment.rollout_id,
        rollout_revision=assignment.rollout_revision,
        segment=assignment.segment,
    )


def served(event: PromptEnriched, at_ms: int) -> Served:
    """An event as the table keeps it."""
    if len(event.prompt) <= KEPT_CHARS:
        return Served(event=event, at_ms=at_ms)
    # Not half of a word: half of an address or a card would not be known as one.
    text = _LAST_WORD.sub("", event.prompt[:KEPT_CHARS])
    return Served(event=msgspec.structs.replace(event, prompt=text), at_ms=at_ms, cut=True)


class ServedTable:
    """The last enriched events, bounded in number and age; read in step with feedback.

    Time is that of the broker, as it stands in the records: what is found depends on neither when
    nor by whom the topics are read.

    Args:
        entries: how many; the oldest is forgotten first, in whatever order they came.
        seconds: how much older than its feedback an event may be.
        late_seconds: how much younger.
    """

    def __init__(self, entries: int, seconds: float, late_seconds: float) -> None:
        self._entries = entries
        self._seconds_ms = round(seconds * 1000)
        self._late_ms = round(late_seconds * 1000)
        self._events: dict[str, Served] = {}
        self._ages: list[tuple[int, str]] = []
        """A heap of the same, oldest first."""
        self._newest_ms = -1
        self._forgotten_ms: int | None = None
        """Of the youngest that was forgotten."""
        self.services: set[str] = set()
        """All that an event was ever seen of."""

    def __len__(self) -> int:
        return len(self._events)

    def clear(self) -> None:
        """Begin anew; services stay known."""
        self._events.clear()
        self._ages.clear()
        self._newest_ms = -1
        self._forgotten_ms = None

    def add(self, one: Served) -> None:
        """Remember an event; a repetition of one changes nothing."""
        self.services.add(one.event.service)
        self._newest_ms = max(self._newest_ms, one.at_ms)
        if one.event.id in self._events:
            return
        self._events[one.event.id] = one
        heapq.heappush(self._ages, (one.at_ms, one.event.id))
        if len(self._events) > self._entries:
            self._forget_oldest()

    def move_to(self, at_ms: int) -> None:
        """Forget what is too old for feedback of a time and later."""
        while self._ages and self._ages[0][0] < at_ms - self._seconds_ms:
            self._forget_oldest()

    def has_passed(self, at_ms: int) -> bool:
        """Whether events may be forgotten that feedback of a time is about.

        It was read too far beyond that time then, and must be read anew.
        """
        return (
            self._newest_ms > at_ms + LEAD * self._late_ms
            and self._forgotten_ms is not None
            and self._forgotten_ms >= at_ms - self._seconds_ms
        )

    def find(self, event_id: str, at_ms: int) -> Served | None:
        """The event that feedback of a time is about, if it is remembered."""
        found = self._events.get(event_id)
        if found is None or not -self._late_ms <= at_ms - found.at_ms <= self._seconds_ms:
            return None
        return found

    def _forget_oldest(self) -> None:
        at_ms, event_id = heapq.heappop(self._ages)
        del self._events[event_id]
        if self._forgotten_ms is None or at_ms > self._forgotten_ms:
            self._forgotten_ms = at_ms
