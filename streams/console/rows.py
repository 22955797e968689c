"""What the console keeps: the newest events as they came, and numbers over time."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = [
    "BINS",
    "GatePoint",
    "Item",
    "ItemKind",
    "Row",
    "ScoreCounts",
    "WindowPoint",
    "WorkerPoint",
]

BINS = 20
"""Of the score distributions: 0.05 wide, which a heat map can show and the eye can tell apart."""


class ItemKind(StrEnum):
    """What an item is; also what it is decoded as."""

    ALERT = "alert"
    CASE = "case"
    DECISION = "decision"
    DRIFT = "drift"
    JUDGED = "judged"
    """The last status that had gates."""
    OFFSETS = "offsets"
    """The next source offset to count, by topic and partition: a batch that comes again is not
    counted again."""
    ROLLOUT = "rollout"
    STATUS = "status"
    WINDOW = "window"
    WORKER = "worker"


class Item(msgspec.Struct, frozen=True):
    """The newest event under a key. Taking all items again gives the read model back."""

    service: str
    kind: ItemKind
    key: str
    at_ms: int
    value: bytes | None
    """JSON; None takes the item out."""


class WindowPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A final window of one arm over all segments."""

    service: str
    arm: str
    start_ms: int
    end_ms: int
    share: float
    prompts: int
    rejected: int
    system_errors: int
    semantic_prompts: int
    semantic_errors: int
    cache_lookups: int
    cache_hits: int
    processing_seconds_mean: float | None
    processing_seconds_p50: float | None
    processing_seconds_p95: float | None
    processing_seconds_p99: float | None
    rules_score_mean: float | None
    score_mean: float | None
    coherence_mean: float | None
    relevance_mean: float | None
    satisfaction_samples: int
    satisfaction_mean: float | None
    accuracy_samples: int
    accuracy_mean: float | None


class GatePoint(msgspec.Struct, frozen=True, kw_only=True):
    """How a gate stood."""

    service: str
    gate: str
    at_ms: int
    verdict: str
    samples: int
    value: float | None
    lower: float | None
    upper: float | None
    limit_value: float | None


class WorkerPoint(msgspec.Struct, frozen=True, kw_only=True):
    """How an analyzer was."""

    service: str
    worker: str
    at_ms: int
    rss_bytes: int
    cpu_share: float | None
    """Of one core, since the sample before."""
    prompts_per_s: float | None
    lag_messages: int


class ScoreCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Measured rows of one arm, to be added to those of their minute."""

    service: str
    arm: str
    minute_ms: int
    rows: int
    processing_seconds: float
    embed_seconds: float
    relevance: list[int]
    """Rows in each of the BINS parts of [0, 1]."""
    coherence: list[int]


Row = Item | WindowPoint | GatePoint | WorkerPoint | ScoreCounts
