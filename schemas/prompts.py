"""What goes in by `prompts`, and what comes out by `prompts.enriched` and `prompts.rejected`.

All values are JSON. Times ending in ``_ms`` are milliseconds since the Unix epoch, durations end
in ``_seconds``, scores and similarities lie in [0, 1].
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "Arm",
    "Assignment",
    "FallbackReason",
    "Path",
    "PromptEnriched",
    "PromptRejected",
    "PromptSubmitted",
    "RejectionCode",
    "RuleScores",
    "SemanticScores",
    "SourcePosition",
    "Timings",
    "Unit",
]

Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A score in [0, 1]; higher is better."""

NonNegative = Annotated[float, Meta(ge=0.0)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]


class Arm(StrEnum):
    """The side of the comparison that a prompt was assigned to."""

    CONTROL = "control"
    CANDIDATE = "candidate"


class Path(StrEnum):
    """How the analysis came about (M28)."""

    RULES = "rules"
    SEMANTIC = "semantic"
    FALLBACK = "fallback"


class FallbackReason(StrEnum):
    """Why a semantic analysis was replaced by the rules result (M64)."""

    BUSY = "busy"
    CIRCUIT_OPEN = "circuit_open"
    ENCODER_ERROR = "encoder_error"
    INVALID_VECTOR = "invalid_vector"
    MODEL_UNAVAILABLE = "model_unavailable"
    SHED = "shed"
    TIMEOUT = "timeout"


class RejectionCode(StrEnum):
    """Why a prompt was not analysed (M13–M15, M26)."""

    CONTROL_CHARACTERS = "control_characters"
    EMPTY = "empty"
    GIBBERISH = "gibberish"
    INTERNAL_ERROR = "internal_error"
    """Our own fault; counted as a system error."""
    INVALID_UTF8 = "invalid_utf8"
    NOT_JSON = "not_json"
    RECORD_TOO_LARGE = "record_too_large"
    REPETITION = "repetition"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    WRONG_SHAPE = "wrong_shape"


class PromptSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to analyse. Only ``prompt`` is required; unknown fields are ignored.

    Two submissions with the same ``id`` are two prompts: each yields its own enriched event, whose
    identity is its source position.
    """

    prompt: Annotated[str, Meta(description="The text to analyse.")]
    id: Annotated[Label | None, Meta(description="The producer's own id of the prompt.")] = None
    user_id: Annotated[
        Label | None, Meta(description="Sticky assignment key; the record key or id when absent.")
    ] = None
    domain: Annotated[
        Label | None, Meta(description="Topic area that relevance is measured against.")
    ] = None
    context: Annotated[
        str | None, Meta(description="Text that the prompt should be relevant to.")
    ] = None
    submitted_at: Annotated[
        Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})] | None,
        Meta(
            description="Event time (RFC 3339; UTC where it names no zone). Feeds lag metrics "
            "only; one more than 5 minutes ahead or 7 days behind the broker's clock is ignored "
            "for them."
        ),
    ] = None
    attributes: Annotated[
        dict[str, str | bool | float],
        Meta(description="What segments are chosen by, for example plan or region."),
    ] = {}


class SourcePosition(msgspec.Struct, frozen=True, order=True):
    """Where in Kafka a prompt came from: the identity of everything made from it."""

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]

    def event_id(self) -> str:
        """The id of the one event that this prompt yields, equal in every repetition."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Which arm and deployment a prompt got, and everything needed to recompute it (M17, M47)."""

    arm: Arm
    deployment: Annotated[str, Meta(description="The deployment whose result is served.")]
    shadow_deployment: Annotated[
        str | None, Meta(description="The candidate that was computed beside it, not served.")
    ] = None
    rollout_id: str | None = None
    rollout_revision: Annotated[int, Meta(ge=0)] = 0
    bucket: Annotated[int, Meta(ge=0, lt=10_000)] = 0
    hash_version: Annotated[str, Meta(description="Bucketing algorithm.")] = "murmur3-32/10000/v1"
    salt: str = ""
    segment: Annotated[
        str, Meta(description="Name of the first segment that matched; `rest` when none did.")
    ] = "rest"


class RuleScores(msgspec.Struct, frozen=True, kw_only=True):
    """The rule-based baseline: always present."""

    structure: Unit
    clarity: Unit
    specificity: Unit
    actionability: Unit
    completeness: Unit
    overall: Unit


class SemanticScores(msgspec.Struct, frozen=True, kw_only=True):
    """What the embedding adds (M5, M19, M20)."""

    coherence: Unit
    relevance: Unit
    density: Unit
    clarity: Unit
    specificity: Unit
    actionability: Unit
    overall: Unit
    domain: Annotated[str, Meta(description="The domain that relevance was measured against.")]
    domain_cosine: Annotated[float, Meta(ge=-1.0, le=1.0)]
    centroid_distance: Annotated[
        float, Meta(ge=0.0, le=2.0, description="1 - cosine to the reference centroid.")
    ]
    cache_hit: bool


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went (M16, M17).

    A batch's stage counts in full for each of its prompts: that is what the prompt waited.
    """

    rules_seconds: NonNegative
    embed_seconds: NonNegative
    semantic_seconds: NonNegative
    processing_seconds: Annotated[
        float, Meta(ge=0.0, description="From the poll that brought the prompt to its result.")
    ]
    queue_seconds: Annotated[
        float | None,
        Meta(description="From the producer's event time to the poll; null when not known."),
    ] = None
    wait_seconds: Annotated[
        float,
        Meta(ge=0.0, description="From the end of the rules to the semantic half's beginning."),
    ] = 0.0
    batch_seconds: Annotated[
        float,
        Meta(
            ge=0.0,
            description="From the poll to the results of its whole batch, which is `ce_time`.",
        ),
    ] = 0.0


class PromptEnriched(msgspec.Struct, frozen=True, kw_only=True):
    """The analysis of one accepted prompt."""

    id: Annotated[str, Meta(description="source topic/partition/offset.")]
    prompt_id: str | None
    user_id: str | None
    service: str
    source: SourcePosition
    prompt: str
    path: Path
    fallback_reason: FallbackReason | None
    assignment: Assignment
    rules: RuleScores
    semantic: SemanticScores | None
    score: Annotated[float, Meta(ge=0.0, le=1.0, description="The served analysis score.")]
    semantic_weight: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the semantic score in `score`.")
    ]
    timings: Timings
    worker_id: str


class PromptRejected(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: nothing that came in is lost."""

    id: Annotated[str, Meta(description="source topic/partition/offset.")]
    service: str
    source: SourcePosition
    code: RejectionCode
    reason: Annotated[str, Meta(description="What is wrong, with the numbers.")]
    payload: Annotated[
        bytes, Meta(description="The record's value as it came (base64), cut at 256 KiB.")
    ]
    payload_bytes: Annotated[int, Meta(ge=0, description="Its full length in bytes.")]
    payload_truncated: bool
    worker_id: str
