"""What was served lately, by event: feedback without an attribution is looked up here."""

from __future__ import annotations

import re

import msgspec
from cachetools import TLRUCache

from schemas.feedback import Attribution
from schemas.prompts import PromptEnriched

__all__ = ["KEPT_CHARS", "Served", "ServedTable", "attribution_of", "served"]

KEPT_CHARS = 2_000
"""Of a prompt: the table may hold many."""
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
    """The last enriched events, bounded in number and age.

    Args:
        entries: how many; the one that was used least lately is forgotten first.
        seconds: how long; counted from its publication, so that a restart changes nothing.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        self._now_ms = 0
        self._events: TLRUCache[str, Served] = TLRUCache(
            maxsize=entries,
            ttu=lambda _, value, __: value.at_ms + round(seconds * 1000),
            timer=lambda: self._now_ms,
        )

    def __len__(self) -> int:
        return len(self._events)

    def add(self, one: Served) -> None:
        """Remember an event."""
        self._events[one.event.id] = one

    def move_to(self, now_ms: int) -> None:
        """Let time pass: what is too old is forgotten. Time does not go back."""
        self._now_ms = max(self._now_ms, now_ms)

    def find(self, event_id: str) -> Served | None:
        """The event, if it is remembered."""
        found: Served | None = self._events.get(event_id)
        return found
