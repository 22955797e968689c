"""What the fold says, before it is anybody's bytes."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from schemas.control import AlertEvent, ControlEvent, GateStatus, LogPosition, WindowMetrics
from schemas.rollout import RolloutState
from schemas.topics import Topic

__all__ = ["Output", "decision_id"]


class Output(NamedTuple):
    """An event to publish, keyed by its service."""

    topic: Topic
    event: ControlEvent | WindowMetrics | GateStatus | RolloutState | AlertEvent
    id: str
    """CloudEvents id; the same when the same log is folded again."""
    at_ms: int
    """Log time."""
    cause: LogPosition
    rollout_id: str | None


def decision_id(*parts: object) -> str:
    """An id made of what was decided on: 32 hex digits, equal for equal parts."""
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()
