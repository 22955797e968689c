"""What is to be written to MLflow, before it is anybody's API."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from schemas.rollout import Deployment

__all__ = [
    "Aliases",
    "FeedbackDraft",
    "Kept",
    "Points",
    "RunDraft",
    "RunEnd",
    "RunOperation",
    "RunRef",
    "RunStart",
    "RunStatus",
    "Side",
    "SpanDraft",
    "TraceDraft",
]


class Kept(StrEnum):
    """Why a trace was written."""

    SAMPLED = "sampled"
    """By the ratio alone."""
    ERROR = "error"
    """It was rejected."""
    FALLBACK = "fallback"
    CURATED = "curated"
    """It became a curated case."""
    FEEDBACK = "feedback"
    """Somebody said something of it."""


class RunRef(NamedTuple):
    """A run by what it is about: a rollout, or a service that had none yet."""

    service: str
    rollout_id: str | None

    @property
    def key(self) -> str:
        """Its identity, a tag of the run."""
        return f"{self.service}/{self.rollout_id or 'no-rollout'}"


class SpanDraft(msgspec.Struct, frozen=True):
    """A span; the first of a trace is its root, and the parent of the others."""

    name: str
    kind: str
    """As MLflow calls it: CHAIN, PARSER, EMBEDDING, ..."""
    start_ns: int
    """Since the epoch."""
    end_ns: int
    error: str | None = None
    attributes: dict[str, Any] = {}
    inputs: Any = None
    outputs: Any = None


class TraceDraft(NamedTuple):
    """A trace of one prompt."""

    trace_id: str
    event_id: str
    name: str
    kept: Kept
    run: RunRef | None
    """That it is linked to."""
    spans: tuple[SpanDraft, ...]
    tags: dict[str, str]


class FeedbackDraft(NamedTuple):
    """Feedback on a trace."""

    trace_id: str
    assessment_id: str
    name: str
    value: float
    human: bool
    source: str
    """Who says it."""
    comment: str | None
    metadata: dict[str, str]
    at_ms: int


class Side(StrEnum):
    """A deployment by its place in a rollout."""

    BLUE = "blue"
    GREEN = "green"


class RunStatus(StrEnum):
    """How a run ends, as MLflow calls it."""

    FINISHED = "FINISHED"
    """Promoted."""
    FAILED = "FAILED"
    """Rolled back by a gate."""
    KILLED = "KILLED"
    """Taken back by a person."""


class RunDraft(NamedTuple):
    """Tags of a run."""

    run: RunRef
    at_ms: int
    tags: dict[str, str]


class RunStart(NamedTuple):
    """The beginning of a rollout."""

    run: RunRef
    at_ms: int
    hop_ms: int
    """Distance of two windows: the step of a metric counts them."""
    params: dict[str, str]
    tags: dict[str, str]
    policy: str | None
    """The document."""
    deployments: dict[Side, Deployment]
    """Empty for an event of a version that did not say them."""
    code_version: str


class Points(NamedTuple):
    """Values of metrics at a moment."""

    run: RunRef
    at_ms: int
    values: dict[str, float]


class RunEnd(NamedTuple):
    """The end of a rollout."""

    run: RunRef
    at_ms: int
    status: RunStatus


class Aliases(NamedTuple):
    """Where the aliases of a service's registered model point from a moment on."""

    run: RunRef
    """Whose deployments blue and green are."""
    at_ms: int
    blue: Side
    green: Side | None
    """None: nothing is rolled out."""
    champion: Side
    verdict: str | None = None
    """What became of the run's green."""
    reason: str = ""


RunOperation = RunStart | RunDraft | Points | RunEnd | Aliases
