"""How a service stands, in a word and a sentence: what the bar at the top of the page says."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from schemas.control import (
    AlertSeverity,
    AlertStatus,
    CommandRejected,
    ControlEvent,
    DriftCleared,
    DriftDetected,
    GateStatus,
    RollbackConfirmed,
    RolloutRolledBack,
    Verdict,
)
from schemas.rollout import Phase, RolloutState
from streams.console.model import ServiceView

__all__ = ["Level", "Standing", "last_decision", "standing"]

QUIET_ACTIVE_MS = 20_000
"""While something is rolled out the monitor speaks with every pane (2 s by default)."""
QUIET_IDLE_MS = 150_000
"""Between rollouts an idle service is heard of once a minute; two may be lost."""


class Level(StrEnum):
    """How much somebody should care."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


class Standing(msgspec.Struct, frozen=True):
    """The verdict."""

    level: Level
    title: str
    why: str


def standing(view: ServiceView, now_ms: int) -> Standing:
    """The worst that is true of a service.

    Args:
        view: what is known of it.
        now_ms: wall clock, ms since the epoch.
    """
    rollout, status = view.rollout, view.status
    if status is None and rollout is None:
        return Standing(
            Level.UNKNOWN, "No data yet", "no monitor has said anything of this service"
        )
    return (
        _quiet(view, now_ms)
        or _rolled_back(view)
        or _degraded(view)
        or _needs_a_look(view)
        or _well(rollout, status)
    )


def last_decision(view: ServiceView) -> ControlEvent | None:
    """The last thing that was decided about traffic or gates."""
    passed_over = CommandRejected | DriftDetected | DriftCleared | RollbackConfirmed
    return next(
        (e for e in reversed(view.decisions.values()) if not isinstance(e, passed_over)), None
    )


def _phase(view: ServiceView) -> Phase:
    if view.rollout is not None:
        return view.rollout.phase
    return view.status.phase if view.status is not None else Phase.IDLE


def _quiet(view: ServiceView, now_ms: int) -> Standing | None:
    active = _phase(view) in {Phase.PROGRESSING, Phase.PAUSED}
    limit_ms = QUIET_ACTIVE_MS if active else QUIET_IDLE_MS
    said_ms = max(
        view.status.at_ms if view.status else 0, view.rollout.at_ms if view.rollout else 0
    )
    quiet_ms = now_ms - said_ms
    if quiet_ms <= limit_ms:
        return None
    return Standing(
        Level.BAD if active else Level.UNKNOWN,
        "Not watched",
        f"the monitor has said nothing for {_duration(quiet_ms)}: is `driftgate monitor` running?",
    )


def _rolled_back(view: ServiceView) -> Standing | None:
    if _phase(view) is not Phase.ROLLED_BACK:
        return None
    for event in reversed(view.decisions.values()):
        if isinstance(event, RollbackConfirmed):
            return Standing(Level.BAD, "Rolled back", event.reason)
        if isinstance(event, RolloutRolledBack):
            waiting = ", ".join(event.workers) or "no live worker"
            return Standing(
                Level.BAD, "Rolling back", f"not confirmed yet; waiting for {waiting}"
            )  # fmt: skip
    return Standing(Level.BAD, "Rolled back", view.rollout.reason if view.rollout else "")


def _degraded(view: ServiceView) -> Standing | None:
    gates = view.status.gates if view.status else []
    broken = [g for g in gates if g.verdict is Verdict.FAILED and not g.dry_run]
    if broken:
        return Standing(Level.BAD, "Degraded", _first(broken[0].reason, len(broken), "gate"))
    critical = [
        a
        for a in view.alerts.values()
        if a.severity is AlertSeverity.CRITICAL and a.status is not AlertStatus.RESOLVED
    ]
    if critical:
        return Standing(Level.BAD, "Degraded", _first(critical[0].summary, len(critical), "alert"))
    return None


def _needs_a_look(view: ServiceView) -> Standing | None:
    if _phase(view) is Phase.PAUSED:
        return Standing(Level.WARN, "Paused", view.rollout.reason if view.rollout else "")
    gates = view.status.gates if view.status else []
    open_ = [g for g in gates if g.verdict is Verdict.ERROR and not g.dry_run]
    if open_:
        return Standing(Level.WARN, "Cannot be judged", _first(open_[0].reason, len(open_), "gate"))
    if view.drift:
        first = next(iter(view.drift.values())).reason
        return Standing(Level.WARN, "Drifting", _first(first, len(view.drift), "episode"))
    alerts = [a for a in view.alerts.values() if a.status is not AlertStatus.RESOLVED]
    if alerts:
        return Standing(Level.WARN, "Needs a look", _first(alerts[0].summary, len(alerts), "alert"))
    return None


def _well(rollout: RolloutState | None, status: GateStatus | None) -> Standing:
    phase = rollout.phase if rollout else Phase.IDLE
    gates = [g for g in status.gates if not g.dry_run] if status else []
    certified = sum(g.verdict is Verdict.SUCCESSFUL for g in gates)
    judged = f"{certified} of {len(gates)} gates certified, none broken" if gates else ""
    if phase is Phase.PROGRESSING and rollout is not None:
        return Standing(Level.OK, "Rolling out", judged or rollout.reason)
    if phase is Phase.PROMOTED and rollout is not None:
        return Standing(Level.OK, "Promoted", judged or rollout.reason)
    return Standing(Level.OK, "Healthy", judged or "nothing is being rolled out")


def _first(text: str, count: int, what: str) -> str:
    return text if count == 1 else f"{text} (and {count - 1} more {what}{'s' if count > 2 else ''})"


def _duration(ms: int) -> str:
    """A duration as people say it.

    >>> _duration(59_000), _duration(7_260_000)
    ('59 s', '2 h 1 min')
    """
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
