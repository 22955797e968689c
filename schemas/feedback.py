"""What people and judges say of an analysis (`prompts.feedback`), and the cases that are kept.

Feedback is plain JSON, sent by any Kafka client. Numbers lie in [0, 1]: thumbs down is 0 and up is
1; n of k stars is ``(n - 1) / (k - 1)``; an expert's label is 1 for correct and 0 for wrong.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.prompts import Arm, FallbackReason, Path, SourcePosition, Unit

__all__ = [
    "Attribution",
    "CaseFeedback",
    "CaseReason",
    "CuratedCase",
    "FeedbackGiven",
    "FeedbackKind",
    "FeedbackRejected",
    "FeedbackRejectionCode",
]

EventId = Annotated[str, Meta(min_length=1, max_length=400)]


class FeedbackKind(StrEnum):
    """Who says it, and so what it is about."""

    USER_RATING = "user_rating"
    """Of somebody who used the result: satisfaction."""
    EXPERT_LABEL = "expert_label"
    """Right (1) or wrong (0), by somebody who knows: accuracy."""
    JUDGE_SCORE = "judge_score"
    """How right, by a model that judges in the place of an expert: accuracy."""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Whose result it is about: `service` and `assignment` of the enriched event, copied.

    The names are those of the event, so that ``{"service": event["service"],
    **event["assignment"]}`` is an attribution; what is not used of it is ignored.
    """

    service: Annotated[str, Meta(min_length=1, max_length=100)]
    arm: Arm
    deployment: Annotated[str, Meta(max_length=100)]
    shadow_deployment: Annotated[str, Meta(max_length=100)] | None = None
    rollout_id: Annotated[str, Meta(max_length=100)] | None = None
    rollout_revision: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    segment: Annotated[str, Meta(min_length=1, max_length=100)] = "rest"

    @property
    def candidate(self) -> bool:
        """Whether green was served: in shadow, people saw what blue made of the prompt."""
        return self.arm is Arm.CANDIDATE and self.shadow_deployment is None


class FeedbackGiven(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody says of the analysis of one prompt. Each record counts once.

    With an attribution it is taken as it is. Without one, the curator looks the event up among
    those of the last day or so; keep the attribution where you can.
    """

    event_id: Annotated[EventId, Meta(description="`id` of the enriched event.")]
    kind: FeedbackKind
    value: Annotated[
        Unit, Meta(description="Higher is better; 0 or 1 alone for an `expert_label`.")
    ]
    attribution: Attribution | None = None
    actor: Annotated[str, Meta(max_length=200, description="Who says it.")] | None = None
    comment: Annotated[str, Meta(max_length=2000)] | None = None


class FeedbackRejectionCode(StrEnum):
    """Why feedback was not counted."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    OUT_OF_RANGE = "out_of_range"
    RECORD_TOO_LARGE = "record_too_large"
    UNKNOWN_EVENT = "unknown_event"
    """No attribution, and no such event among those that the curator remembers."""
    WRONG_SHAPE = "wrong_shape"


class FeedbackRejected(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letter of feedback: nothing that came in is lost."""

    id: Annotated[str, Meta(description="source topic/partition/offset.")]
    source: SourcePosition
    event_id: Annotated[str | None, Meta(description="Of the feedback, where it could be read.")]
    code: FeedbackRejectionCode
    reason: Annotated[str, Meta(description="What is wrong, with the numbers.")]
    payload: Annotated[
        bytes, Meta(description="The record's value as it came (base64), cut at 16 KiB.")
    ]
    payload_bytes: Annotated[int, Meta(ge=0, description="Its full length in bytes.")]
    payload_truncated: bool


class CaseReason(StrEnum):
    """Why a prompt is worth a look (M42)."""

    DISAGREEMENT = "disagreement"
    """Rules and semantics are far apart."""
    DRIFT = "drift"
    """Far from the reference while a drift alarm is open."""
    FALLBACK = "fallback"
    LOW_RELEVANCE = "low_relevance"
    NEGATIVE_FEEDBACK = "negative_feedback"


class CaseFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """The feedback that made a case one."""

    kind: FeedbackKind
    value: Unit
    comment: Annotated[str | None, Meta(description="Redacted.")] = None


class CuratedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that the analysis had trouble with, redacted, without its near-duplicates.

    A later record of the same id replaces it, and holds its reasons too.
    """

    id: Annotated[str, Meta(description="Of the enriched event; the key.")]
    service: str
    reasons: Annotated[list[CaseReason], Meta(min_length=1)]
    prompt: Annotated[str, Meta(description="Redacted, and cut at 4,000 characters.")]
    prompt_truncated: bool
    redacted: Annotated[
        list[str], Meta(description="What was taken out: card, email, key, phone.")
    ] = []
    arm: Arm
    deployment: str
    rollout_id: str | None
    rollout_revision: Annotated[int, Meta(ge=0)]
    segment: str
    path: Path
    fallback_reason: FallbackReason | None
    score: Unit
    rules_score: Unit
    semantic_score: Unit | None = None
    relevance: Unit | None = None
    coherence: Unit | None = None
    centroid_distance: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    domain: str | None = None
    feedback: CaseFeedback | None = None
    curated_ms: Annotated[int, Meta(ge=0, description="When, ms since the epoch.")]
