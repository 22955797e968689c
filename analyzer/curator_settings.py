"""Settings of a curator process."""

from __future__ import annotations

import msgspec

from analyzer.curation import CurationLimits
from schemas.settings import KafkaSettings

__all__ = ["CuratorSettings"]


class CuratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Built once from the environment and the command line, checked before connecting."""

    kafka: KafkaSettings
    curator_id: str
    """Names the process in what it writes."""
    events: int = 50_000
    """Enriched events that are remembered, for feedback without an attribution. About 3 KB each,
    and up to 10 KB where prompts are long: `python -m benchmarks.curator`."""
    event_seconds: float = 86_400.0
    """How long after its event feedback may come without an attribution."""
    late_seconds: float = 10.0
    """How long before its event feedback may come; feedback on an unknown event holds back those
    behind it for so long. Above the time that an event needs from its commit to every reader, below
    what a gate should wait for feedback."""
    waiting: int = 5_000
    """Pieces of feedback of a partition that may wait for their event."""
    curation: CurationLimits = CurationLimits()

    @property
    def group_id(self) -> str:
        """The consumer group: one, whatever the services."""
        return f"{self.kafka.topic_prefix}driftgate-curator"
