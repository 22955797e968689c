"""What an alert looks like to a person, and to Alertmanager."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from schemas.control import AlertEvent, AlertSeverity, AlertStatus

__all__ = ["Message", "alertmanager_alert", "is_for_escalation", "message_of"]

_ENDS_AFTER = timedelta(days=365)
"""Alertmanager forgets an alert that nobody repeats after five minutes, unless it is told when it
ends. Ours ends when it is resolved, and says so."""


class Message(NamedTuple):
    """A text for people."""

    title: str
    body: str
    urgent: bool


def message_of(event: AlertEvent) -> Message:
    """An alert in words: what happened, since when, and what to do."""
    status = {
        AlertStatus.FIRING: event.severity.upper(),
        AlertStatus.ACKNOWLEDGED: "acknowledged",
        AlertStatus.ESCALATED: f"{event.severity.upper()}, escalation {event.escalation}",
        AlertStatus.RESOLVED: "resolved",
    }[event.status]
    lines = [event.summary, ""]
    if event.status is AlertStatus.ACKNOWLEDGED:
        lines.append(f"Acknowledged by {event.actor or 'somebody'}: it will not be escalated.")
    elif event.status is not AlertStatus.RESOLVED:
        lines.append(f"What to do: {event.cure}")
    if event.status is AlertStatus.ESCALATED:
        lines.append("Nobody has acknowledged it.")
    if event.status in (AlertStatus.FIRING, AlertStatus.ESCALATED):
        lines.append(f"Acknowledge: driftgate alerts ack {event.key} --service {event.service}")
    lines += ["", f"since {_time(event.since_ms)}, said at {_time(event.at_ms)}", event.key]
    return Message(
        title=f"[driftgate] {event.service}: {event.rule} ({status})",
        body="\n".join(lines),
        urgent=event.severity is AlertSeverity.CRITICAL
        and event.status in (AlertStatus.FIRING, AlertStatus.ESCALATED),
    )


def is_for_escalation(event: AlertEvent) -> bool:
    """Whether those who are only called when nobody answers must hear of it.

    They get escalations, and what becomes of an alert that was escalated.
    """
    return event.escalation > 0


def alertmanager_alert(event: AlertEvent) -> dict[str, Any]:
    """An alert as `POST /api/v2/alerts` of Alertmanager takes it (OpenAPI of its API v2).

    The labels are the same in every status, since they are an alert's identity there.
    """
    resolved = event.status is AlertStatus.RESOLVED
    since = datetime.fromtimestamp(event.since_ms / 1000, UTC)
    ends = datetime.fromtimestamp(event.at_ms / 1000, UTC) if resolved else since + _ENDS_AFTER
    return {
        "labels": {
            "alertname": event.rule,
            "service": event.service,
            "key": event.key,
            "severity": str(event.severity),
            "source": "driftgate",
        },
        "annotations": {
            "summary": event.summary,
            "cure": event.cure,
            "status": str(event.status),
            "acknowledged_by": event.actor or "",
            "escalation": str(event.escalation),
        },
        "startsAt": since.isoformat(timespec="milliseconds"),
        "endsAt": ends.isoformat(timespec="milliseconds"),
    }


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
