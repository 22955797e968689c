"""Rollouts, a line each: who began it, the stages that it reached, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.control import (
    ControlEvent,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutRolledBack,
    RolloutStarted,
)
from schemas.rollout import Mode, Phase

__all__ = ["RolloutLine", "Step", "rollout_lines"]


class Step(msgspec.Struct, frozen=True):
    """A stage that was reached."""

    share: float
    at_ms: int
    actor: str


class RolloutLine(msgspec.Struct, kw_only=True):
    """One rollout."""

    service: str
    rollout_id: str
    blue: str | None = None
    """None where its start is older than what is kept."""
    green: str | None = None
    mode: Mode = Mode.ROLLOUT
    rehearsal: bool = False
    phase: Phase = Phase.PROGRESSING
    started_ms: int
    ended_ms: int | None = None
    steps: list[Step] = []
    shares: list[float] = []
    """Of each stage that was planned; empty where its start is older than what is kept."""
    actor: str = ""
    """Who began it."""
    reason: str = ""
    """Of the last change."""
    confirmed_ms: int | None = None
    """How long every worker took to apply the rollback."""
    decision_id: str = ""
    """Of the last change."""


def rollout_lines(events: Iterable[ControlEvent]) -> list[RolloutLine]:
    """The rollouts that control events tell of, the newest first.

    Args:
        events: in the order in which they were decided.
    """
    lines: dict[tuple[str, str], RolloutLine] = {}
    for event in events:
        if event.rollout_id is None or not isinstance(event, _TELLING):
            continue
        key = (event.service, event.rollout_id)
        line = lines.get(key)
        if line is None:
            line = lines[key] = RolloutLine(
                service=event.service, rollout_id=event.rollout_id, started_ms=event.at_ms
            )
        _tell(line, event)
    return sorted(lines.values(), key=lambda line: -line.started_ms)


_TELLING = (
    RollbackConfirmed
    | RolloutAdvanced
    | RolloutPaused
    | RolloutPromoted
    | RolloutResumed
    | RolloutRolledBack
    | RolloutStarted
)


def _tell(line: RolloutLine, event: ControlEvent) -> None:
    if isinstance(event, RollbackConfirmed):
        line.confirmed_ms = event.confirmed_ms
        return
    line.reason, line.decision_id = event.reason, event.id
    match event:
        case RolloutStarted():
            line.blue, line.green, line.mode = event.blue, event.green, event.mode
            line.actor, line.rehearsal = event.actor, event.rehearsal
            line.shares = event.shares
            line.steps.append(Step(event.share, event.at_ms, event.actor))
        case RolloutAdvanced():
            line.phase = Phase.PROGRESSING
            line.steps.append(Step(event.share, event.at_ms, event.actor))
        case RolloutPaused():
            line.phase = Phase.PAUSED
        case RolloutResumed():
            line.phase = Phase.PROGRESSING
        case RolloutPromoted():
            line.phase, line.ended_ms = Phase.PROMOTED, event.at_ms
        case RolloutRolledBack():
            line.phase, line.ended_ms = Phase.ROLLED_BACK, event.at_ms
