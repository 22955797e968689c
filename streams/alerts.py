"""Alerts in the fold: raised once, acknowledged, escalated by log time, resolved (M63)."""

from __future__ import annotations

from schemas.alerting import AlertRule
from schemas.control import AlertSeverity, AlertStatus
from schemas.log import OperatorCommand
from streams.emit import Emitter
from streams.state import OpenAlert, ServiceState

__all__ = ["acknowledge", "check_alerts", "fire", "resolve", "resolve_all", "tell"]

NOTICE_MS = 3_600_000
"""An alert about something that cannot end, such as a command that nobody could read, is over when
it has been open for so long."""
_NOTICES = frozenset({AlertRule.COMMAND_UNREADABLE, AlertRule.LOG_UNREADABLE})


def fire(
    state: ServiceState,
    emit: Emitter,
    rule: AlertRule,
    summary: str,
    cure: str,
    *,
    severity: AlertSeverity = AlertSeverity.WARNING,
    subject: str = "",
) -> None:
    """Raise an alert, unless it is open already, or muted by the policy.

    Args:
        state: of the service that it is about.
        emit: where it is said.
        rule: what it is about.
        summary: what has happened, with the numbers.
        cure: what to do about it.
        severity: how urgent it is.
        subject: tells alerts of one rule apart, such as a worker's name.
    """
    key = _key(state, rule, subject)
    if key in state.alerts or rule in state.policy.alerts.muted:
        return
    state.alerts[key] = OpenAlert(
        rule=rule,
        severity=severity,
        summary=summary,
        cure=cure,
        since_ms=state.now_ms,
        asked_ms=state.now_ms,
    )
    _say(state, emit, key, AlertStatus.FIRING)


def resolve(
    state: ServiceState, emit: Emitter, rule: AlertRule, summary: str, *, subject: str = ""
) -> None:
    """End an alert, if it is open.

    Args:
        state: of the service that it is about.
        emit: where it is said.
        rule: what it is about.
        summary: what has ended it.
        subject: as it was raised.
    """
    _end(state, emit, _key(state, rule, subject), summary)


def resolve_all(state: ServiceState, emit: Emitter, rule: AlertRule, summary: str) -> None:
    """End every alert of a rule."""
    for key in [k for k, alert in state.alerts.items() if alert.rule is rule]:
        _end(state, emit, key, summary)


def tell(
    state: ServiceState,
    emit: Emitter,
    rule: AlertRule,
    wrong: str | None,
    *,
    cure: str,
    right: str,
    severity: AlertSeverity = AlertSeverity.WARNING,
    subject: str = "",
) -> None:
    """Raise an alert while something is wrong, and end it when it is not.

    Args:
        state: of the service that it is about.
        emit: where it is said.
        rule: what it is about.
        wrong: what is wrong now; None when nothing is.
        cure: what to do about it.
        right: what is said at its end.
        severity: how urgent it is.
        subject: as for `fire`.
    """
    if wrong is not None:
        fire(state, emit, rule, wrong, cure, severity=severity, subject=subject)
    else:
        resolve(state, emit, rule, right, subject=subject)


def acknowledge(state: ServiceState, command: OperatorCommand, emit: Emitter) -> str | None:
    """Take note that somebody looks after an alert; why not, where it cannot be."""
    key = command.alert_key or ""
    alert = state.alerts.get(key)
    if alert is None:
        return f"no alert {key!r} is open"
    alert.acknowledged_by = command.actor
    _say(state, emit, key, AlertStatus.ACKNOWLEDGED)
    return None


def check_alerts(state: ServiceState, emit: Emitter) -> None:
    """Escalate what nobody has acknowledged in time, and let notices go."""
    pauses = state.policy.alerts.escalate_seconds
    for key, alert in list(state.alerts.items()):
        if alert.rule in _NOTICES and state.now_ms - alert.since_ms >= NOTICE_MS:
            _end(state, emit, key, "it was said an hour ago, and has not come again")
        elif (
            alert.acknowledged_by is None
            and alert.escalation < len(pauses)
            and state.now_ms - alert.asked_ms >= pauses[alert.escalation] * 1000
        ):
            alert.escalation += 1
            alert.asked_ms = state.now_ms
            _say(state, emit, key, AlertStatus.ESCALATED)


def _key(state: ServiceState, rule: AlertRule, subject: str) -> str:
    return f"{rule}/{state.service}" + (f"/{subject}" if subject else "")


def _end(state: ServiceState, emit: Emitter, key: str, summary: str) -> None:
    if key in state.alerts:
        state.alerts[key].summary = summary
        state.alerts[key].cure = "nothing to do"
        _say(state, emit, key, AlertStatus.RESOLVED)
        del state.alerts[key]


def _say(state: ServiceState, emit: Emitter, key: str, status: AlertStatus) -> None:
    emit.alert(key, state.alerts[key], status)
