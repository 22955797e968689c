"""An analyzer as its heartbeats show it: since when it runs, and how hard it works."""

from __future__ import annotations

import msgspec

from schemas.log import Heartbeat

__all__ = ["RATE_MS", "WorkerSeen", "heard_again", "is_live"]

RATE_MS = 5_000
"""Rates are of at least so long: CPU time is counted in hundredths of a second, and a second of it
would jump about."""


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a worker."""

    beat: Heartbeat
    """The newest one."""
    seen_ms: int
    since_ms: int
    """First heartbeat of this incarnation."""
    restarts: int = 0
    """Incarnations after the first one that was seen."""
    base_ms: int
    """Where the rates that are being measured begin."""
    base_cpu_seconds: float
    base_prompts: int
    cpu_share: float | None = None
    """Of one core."""
    prompts_per_s: float | None = None


def heard_again(known: WorkerSeen | None, beat: Heartbeat, at_ms: int) -> WorkerSeen:
    """What is known after a heartbeat.

    Args:
        known: before it.
        beat: the heartbeat.
        at_ms: its broker time, ms since the epoch.
    """
    if known is None or known.beat.incarnation != beat.incarnation:
        return WorkerSeen(
            beat=beat,
            seen_ms=at_ms,
            since_ms=at_ms,
            restarts=0 if known is None else known.restarts + 1,
            base_ms=at_ms,
            base_cpu_seconds=beat.cpu_seconds,
            base_prompts=beat.prompts,
        )
    past_ms = at_ms - known.base_ms
    if past_ms < RATE_MS:
        return msgspec.structs.replace(known, beat=beat, seen_ms=max(at_ms, known.seen_ms))
    seconds = past_ms / 1000
    return msgspec.structs.replace(
        known,
        beat=beat,
        seen_ms=at_ms,
        base_ms=at_ms,
        base_cpu_seconds=beat.cpu_seconds,
        base_prompts=beat.prompts,
        cpu_share=max(0.0, beat.cpu_seconds - known.base_cpu_seconds) / seconds,
        prompts_per_s=max(0, beat.prompts - known.base_prompts) / seconds,
    )


def is_live(worker: WorkerSeen, now_ms: int) -> bool:
    """Whether it was heard of lately, by the rule of the monitor and two seconds for the way."""
    late_ms = now_ms - worker.seen_ms
    return not worker.beat.leaving and late_ms <= 3 * worker.beat.interval_ms + 3_000
