"""Settings of a monitor process."""

from __future__ import annotations

import msgspec

from schemas.policy import Policy
from schemas.settings import KafkaSettings

__all__ = ["ConsoleSettings", "MonitorSettings", "NotifierSettings", "TrackerSettings"]


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


class TrackerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to MLflow, and where it is."""

    kafka: KafkaSettings
    uri: str
    """MLflow's tracking URI; may hold a password."""
    experiment: str = "driftgate"
    artifact_location: str | None = None
    """Where a new experiment keeps its files; None: where MLflow's server says."""
    trace_ratio: float = 0.02
    """Share of prompts that are sampled, in [0, 1]."""
    timeout_seconds: int = 30
    """Of a request."""
    loader_module: str
    """See :class:`streams.tracking.mlflow_models.ModelRegistry`."""
    requirements: list[str]

    @property
    def shown_uri(self) -> str:
        """The URI without what may be a secret."""
        kind, _, place = self.uri.partition("://")
        return f"{kind}://{place.partition('?')[0].rpartition('@')[2]}"


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
