"""Settings of a monitor process."""

from __future__ import annotations

import msgspec

from schemas.policy import Policy
from schemas.settings import KafkaSettings

__all__ = ["ConsoleSettings", "MonitorSettings", "NotifierSettings"]


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Built once from the environment and the command line, checked before connecting."""

    kafka: KafkaSettings
    monitor_id: str
    """Static group membership: one a process; a restart under the same id resumes at once."""
    policy: Policy
    """What a `start` command without a policy of its own gets."""
    session_timeout_seconds: float = 8.0
    """After so long without a heartbeat another monitor takes over; restarts are quicker."""
    data_dir: str = ""
    """Where Faust may keep files; nothing of ours is in it."""


class NotifierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go; without any of them there is nobody to tell."""

    kafka: KafkaSettings
    urls: list[str]
    """Apprise URLs that hear of every alert; may hold secrets."""
    escalation_urls: list[str]
    """Apprise URLs that hear of alerts that nobody has acknowledged."""
    alertmanager_url: str | None


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of the web console."""

    kafka: KafkaSettings
    host: str
    port: int
    directory: str
    """Of the database and the tokens."""
    retention_days: float
    """What is older is deleted from the database."""
    max_rows: int
    """Of each table; the oldest go first."""
    session_hours: float
    """Life of a sign-in."""
