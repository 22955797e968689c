"""Picks the prompts that are worth a look, a few in each span of time (M42).

The worst of each kind in a window are kept, so that neither a quiet service nor a flood decides how
many there are; the window's cases come out when it closes, negative feedback at once. Texts that
are nearly the same as a case that was kept are passed over.

Windows are those of one partition, by the broker's time stamps: which cases come of a partition
depends on neither how fast it is read nor on who reads the others, and a partition that goes to
another curator begins with its open window.
"""

from __future__ import annotations

import heapq
from collections import Counter

import msgspec

from analyzer.casebook import Casebook
from analyzer.drift_alarms import DriftAlarms
from analyzer.redaction import redact
from analyzer.served import Served
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackGiven
from schemas.prompts import Path

__all__ = ["Curation", "CurationLimits"]


class CurationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a problem, and how many are kept."""

    window_seconds: float = 60.0
    cases: int = 5
    """The most in a window of a partition, of enriched events or of feedback."""
    relevance_below: float = 0.6
    """Less relevant ones alone are a problem (M37)."""
    disagreement_above: float = 0.3
    """Between the overall scores of rules and semantics."""
    negative_up_to: float = 0.25
    """Feedback up to this is negative: thumbs down, one star or two of five, a wrong label."""
    remembered: int = 4096
    """Cases that near-duplicates and later reasons are found by."""


class Curation:
    """The cases of one partition, of `prompts.enriched` or of `prompts.feedback`.

    Args:
        limits: what is picked.
        book: the cases of all partitions.
        alarms: of drift.
        passed_over: counts what might have been a case, by why it is none: duplicate, over_budget.
    """

    def __init__(
        self,
        limits: CurationLimits,
        book: Casebook,
        alarms: DriftAlarms,
        passed_over: Counter[str],
    ) -> None:
        self._limits = limits
        self._window_ms = round(limits.window_seconds * 1000)
        self._book = book
        self._alarms = alarms
        self._passed_over = passed_over
        self._worst: dict[tuple[CaseReason, str], list[tuple[float, int, Served]]] = {}
        self._order = 0
        self._window = -1
        self._begin: int | None = None
        self._spent: set[str] = set()
        """Events that are cases of this window."""

    @property
    def begin(self) -> int | None:
        """From which source offset on events must be read again, for the cases to come; or None."""
        return self._begin

    def see(self, one: Served, offset: int) -> list[CuratedCase]:
        """Take note of an enriched event.

        Returns:
            The cases of the window that is over with it.
        """
        cases = self._move_to(one.at_ms)
        if self._begin is None:
            self._begin = offset
        for reason, badness in self._problems(one):
            worst = self._worst.setdefault((reason, one.event.service), [])
            self._order += 1
            candidate = (badness, -self._order, one)
            if len(worst) < self._limits.cases:
                heapq.heappush(worst, candidate)
                continue
            heapq.heappushpop(worst, candidate)
            if reason is not CaseReason.DRIFT:
                self._passed_over["over_budget"] += 1
        return cases

    def hear(self, one: Served, given: FeedbackGiven, at_ms: int) -> CuratedCase | None:
        """The case that feedback makes of an event, if it is negative and there is room.

        Args:
            one: the event.
            given: the feedback.
            at_ms: when it came.
        """
        if given.value > self._limits.negative_up_to:
            return None
        self._move_to(at_ms)
        comment = redact(given.comment).text if given.comment else None
        said = CaseFeedback(kind=given.kind, value=given.value, comment=comment)
        return self._take(one, CaseReason.NEGATIVE_FEEDBACK, at_ms, said)

    def close(self) -> list[CuratedCase]:
        """The cases of the open window, because it is over or nothing comes any more."""
        self._begin = None
        start_ms = self._window * self._window_ms
        end_ms = start_ms + self._window_ms
        cases: dict[str, CuratedCase] = {}
        for reason, one in self._in_turn(start_ms, end_ms):
            case = self._take(one, reason, end_ms)
            if case is not None:
                cases[case.id] = case
        self._worst.clear()
        return list(cases.values())

    def _move_to(self, at_ms: int) -> list[CuratedCase]:
        window = at_ms // self._window_ms
        if window <= self._window:
            # Also where the broker's clock went back.
            return []
        cases = self.close()
        self._window = window
        self._spent.clear()
        return cases

    def _in_turn(self, start_ms: int, end_ms: int) -> list[tuple[CaseReason, Served]]:
        """The worst of each kind, then the second of each, and so on.

        In each window another kind goes first, so that all have their turn where there is room for
        a few alone.
        """
        kinds = [
            (reason, service)
            for reason, service in sorted(self._worst)
            if reason is not CaseReason.DRIFT
            or self._alarms.open_between(service, start_ms, end_ms)
        ]
        first = self._window % max(len(kinds), 1)
        kinds = kinds[first:] + kinds[:first]
        queues = [sorted(self._worst[kind], reverse=True) for kind in kinds]
        return [
            (kind[0], queue[place][2])
            for place in range(self._limits.cases)
            for kind, queue in zip(kinds, queues, strict=True)
            if place < len(queue)
        ]

    def _take(
        self, one: Served, reason: CaseReason, at_ms: int, said: CaseFeedback | None = None
    ) -> CuratedCase | None:
        """The case, if there is room for it and something new about it."""
        event_id = one.event.id
        if event_id not in self._spent and len(self._spent) >= self._limits.cases:
            self._passed_over["over_budget"] += 1
            return None
        known = self._book.get(event_id)
        case = self._book.take(one, reason, at_ms, said)
        if case is None:
            self._passed_over["duplicate"] += 1
            return None
        # One that is known already was made before a restart, and had its room then.
        self._spent.add(event_id)
        return None if case is known else case

    def _problems(self, one: Served) -> list[tuple[CaseReason, float]]:
        event, limits = one.event, self._limits
        found = []
        if event.path is Path.FALLBACK:
            found.append((CaseReason.FALLBACK, 0.0))
        semantic = event.semantic
        if semantic is None:
            return found
        if semantic.relevance < limits.relevance_below:
            found.append((CaseReason.LOW_RELEVANCE, 1.0 - semantic.relevance))
        gap = abs(semantic.overall - event.rules.overall)
        if gap > limits.disagreement_above:
            found.append((CaseReason.DISAGREEMENT, gap))
        # Whether there was an alarm is known when the window is over: it comes after its causes.
        found.append((CaseReason.DRIFT, semantic.centroid_distance))
        return found
