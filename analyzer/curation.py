"""Picks the prompts that are worth a look, a few in each span of time (M42).

The worst of each kind in a window are kept, so that neither a quiet service nor a flood decides how
many there are; the window's cases come out when it closes, negative feedback at once. Texts that
are nearly the same as a case that was kept are passed over.
"""

from __future__ import annotations

import heapq

import msgspec
from cachetools import LRUCache

from analyzer.near_duplicates import NearDuplicates
from analyzer.redaction import redact
from analyzer.served import Served
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackGiven
from schemas.prompts import Path

__all__ = ["Curation", "CurationLimits"]

_MAX_CHARS = 4_000


class CurationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a problem, and how many are kept."""

    window_seconds: float = 60.0
    cases: int = 20
    """The most in a window."""
    worst: int = 5
    """The most of one reason and service in a window."""
    relevance_below: float = 0.6
    """Less relevant ones alone are a problem (M37)."""
    disagreement_above: float = 0.3
    """Between the overall scores of rules and semantics."""
    negative_up_to: float = 0.25
    """Feedback up to this is negative: thumbs down, one star or two of five, a wrong label."""
    remembered: int = 4096
    """Cases that near-duplicates and later reasons are found by."""


class Curation:
    """The cases of all services; time is told to it.

    Args:
        limits: what is picked.
    """

    def __init__(self, limits: CurationLimits) -> None:
        self._limits = limits
        self._worst: dict[tuple[CaseReason, str], list[tuple[float, int, Served]]] = {}
        self._order = 0
        self._window = -1
        self._spent = 0
        """Cases in this window."""
        self._alarms: dict[str, set[str]] = {}
        """Open drift alarms of each service."""
        self._near = NearDuplicates(limits.remembered)
        self._cases: LRUCache[str, CuratedCase] = LRUCache(limits.remembered)
        self.curated = 0
        self.duplicates = 0
        self.over_budget = 0

    def alarm(self, service: str, key: str, *, open_: bool) -> None:
        """Take note of a drift alarm that begins or ends."""
        keys = self._alarms.setdefault(service, set())
        if open_:
            keys.add(key)
        else:
            keys.discard(key)

    def see(self, one: Served) -> None:
        """Take note of an enriched event."""
        for reason, badness in self._problems(one):
            worst = self._worst.setdefault((reason, one.event.service), [])
            self._order += 1
            candidate = (badness, -self._order, one)
            if len(worst) < self._limits.worst:
                heapq.heappush(worst, candidate)
            else:
                heapq.heappushpop(worst, candidate)

    def hear(self, one: Served, given: FeedbackGiven, now_ms: int) -> CuratedCase | None:
        """The case that feedback makes of an event, if it is negative and there is room."""
        if given.value > self._limits.negative_up_to:
            return None
        if self._spent >= max(self._limits.cases // 2, 1):
            # Half of the room is for what nobody complains of.
            self.over_budget += 1
            return None
        comment = redact(given.comment).text if given.comment else None
        said = CaseFeedback(kind=given.kind, value=given.value, comment=comment)
        return self._case(one, CaseReason.NEGATIVE_FEEDBACK, now_ms, said)

    def close(self, now_ms: int) -> list[CuratedCase] | None:
        """The cases of the window, once log time is beyond it; None while it lasts."""
        window = now_ms // round(self._limits.window_seconds * 1000)
        if self._window < 0:
            self._window = window
        if window <= self._window:
            return None
        cases: list[CuratedCase] = []
        # The worst of each kind first, then the second of each, and so on.
        queues = [sorted(self._worst[key], reverse=True) for key in sorted(self._worst)]
        keys = sorted(self._worst)
        for place in range(self._limits.worst):
            for (reason, _), queue in zip(keys, queues, strict=True):
                if place >= len(queue):
                    continue
                if self._spent >= self._limits.cases:
                    self.over_budget += 1
                    continue
                case = self._case(queue[place][2], reason, now_ms, None)
                if case is not None:
                    cases.append(case)
        self._worst.clear()
        self._window, self._spent = window, 0
        return cases

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
        if self._alarms.get(event.service):
            found.append((CaseReason.DRIFT, semantic.centroid_distance))
        return found

    def _case(
        self, one: Served, reason: CaseReason, now_ms: int, said: CaseFeedback | None
    ) -> CuratedCase | None:
        event = one.event
        known = self._cases.get(event.id)
        if known is not None:
            return self._again(known, reason, now_ms, said)
        text = redact(event.prompt)
        if self._near.seen(text.text):
            self.duplicates += 1
            return None
        semantic, assignment = event.semantic, event.assignment
        case = CuratedCase(
            id=event.id,
            service=event.service,
            reasons=[reason],
            prompt=text.text[:_MAX_CHARS],
            prompt_truncated=one.cut or len(text.text) > _MAX_CHARS,
            redacted=list(text.found),
            arm=assignment.arm,
            deployment=assignment.deployment,
            rollout_id=assignment.rollout_id,
            rollout_revision=assignment.rollout_revision,
            segment=assignment.segment,
            path=event.path,
            fallback_reason=event.fallback_reason,
            score=event.score,
            rules_score=event.rules.overall,
            semantic_score=semantic.overall if semantic else None,
            relevance=semantic.relevance if semantic else None,
            coherence=semantic.coherence if semantic else None,
            centroid_distance=semantic.centroid_distance if semantic else None,
            domain=semantic.domain if semantic else None,
            feedback=said,
            curated_ms=now_ms,
        )
        return self._kept(case)

    def _again(
        self, known: CuratedCase, reason: CaseReason, now_ms: int, said: CaseFeedback | None
    ) -> CuratedCase | None:
        if reason in known.reasons and (said is None or said == known.feedback):
            return None
        return self._kept(
            msgspec.structs.replace(
                known,
                reasons=sorted({*known.reasons, reason}),
                feedback=said or known.feedback,
                curated_ms=now_ms,
            )
        )

    def _kept(self, case: CuratedCase) -> CuratedCase:
        self._cases[case.id] = case
        self._spent += 1
        self.curated += 1
        return case
