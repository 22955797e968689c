"""From what people and judges say of a result to an assessment of its trace."""

from __future__ import annotations

from schemas.feedback import FeedbackGiven, FeedbackKind
from schemas.prompts import SourcePosition
from streams.tracking.drafts import FeedbackDraft
from streams.tracking.identity import assessment_id, trace_id

__all__ = ["feedback_draft"]


def feedback_draft(
    given: FeedbackGiven, source: SourcePosition, *, cluster_id: str, at_ms: int
) -> FeedbackDraft:
    """The assessment that a record of feedback is.

    Args:
        given: what was said.
        source: where it stands: read again, it is the same assessment.
        cluster_id: Kafka's.
        at_ms: when it came, by the broker's clock.
    """
    position = source.event_id()
    return FeedbackDraft(
        trace_id=trace_id(cluster_id, given.event_id),
        assessment_id=assessment_id(cluster_id, position),
        name=given.kind.value,
        value=given.value,
        human=given.kind is not FeedbackKind.JUDGE_SCORE,
        source=given.actor or "unknown",
        comment=given.comment,
        metadata={"driftgate.event_id": given.event_id, "driftgate.source": position},
        at_ms=at_ms,
    )
