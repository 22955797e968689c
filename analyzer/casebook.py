"""The cases that were made lately: each event is one case, and near-duplicates are none."""

from __future__ import annotations

import msgspec
from cachetools import LRUCache

from analyzer.near_duplicates import NearDuplicates
from analyzer.redaction import redact
from analyzer.served import Served
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase

__all__ = ["Casebook"]

_MAX_CHARS = 4_000


class Casebook:
    """Cases by event, of all services and curators.

    Args:
        remembered: how many; later reasons and near-duplicates are found by them.
    """

    def __init__(self, remembered: int) -> None:
        self._cases: LRUCache[str, CuratedCase] = LRUCache(remembered)
        self._near = NearDuplicates(remembered)

    def get(self, event_id: str) -> CuratedCase | None:
        """The case of an event, if there is one that is remembered."""
        found: CuratedCase | None = self._cases.get(event_id)
        return found

    def take(
        self, one: Served, reason: CaseReason, at_ms: int, said: CaseFeedback | None = None
    ) -> CuratedCase | None:
        """The case of an event that is worth a look, with this reason among others.

        Args:
            one: the event.
            reason: why.
            at_ms: when that was found.
            said: the feedback, where that is the reason.

        Returns:
            The case; the one that is known when there is nothing new about it; None for a
            near-duplicate of another event's.
        """
        known = self.get(one.event.id)
        if known is None:
            case = _case(one, reason, at_ms, said)
            if self._near.seen(case.prompt, case.service):
                return None
        elif reason in known.reasons and (said is None or said == known.feedback):
            return known
        else:
            case = msgspec.structs.replace(
                known,
                reasons=sorted({*known.reasons, reason}),
                feedback=said or known.feedback,
                curated_ms=at_ms,
            )
        self._cases[case.id] = case
        return case

    def learn(self, case: CuratedCase) -> CuratedCase | None:
        """Take note of a case that stands on the topic.

        Returns:
            The same with the reasons that were known here besides, which the topic must have too;
            None when it has them.
        """
        known = self.get(case.id)
        if known is None:
            self._near.keep(case.prompt, case.service)
        elif not set(known.reasons) <= set(case.reasons):
            case = msgspec.structs.replace(
                case,
                reasons=sorted({*known.reasons, *case.reasons}),
                feedback=case.feedback or known.feedback,
                curated_ms=max(case.curated_ms, known.curated_ms),
            )
            self._cases[case.id] = case
            return case
        self._cases[case.id] = case
        return None

    def forget(self, event_id: str) -> None:
        """Take note that somebody wants a case to be gone; its text makes no other case now."""
        self._cases.pop(event_id, None)


def _case(one: Served, reason: CaseReason, at_ms: int, said: CaseFeedback | None) -> CuratedCase:
    event = one.event
    text = redact(event.prompt)
    semantic, assignment = event.semantic, event.assignment
    return CuratedCase(
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
        curated_ms=at_ms,
    )
