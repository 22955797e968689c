"""What a tracker counts: nothing is left out without standing here."""

from __future__ import annotations

from collections import Counter

from schemas.topics import Topic
from streams.tracking.drafts import Kept

__all__ = ["TrackerTelemetry"]


class TrackerTelemetry:
    """Counts since the start of the process, and how things stand."""

    def __init__(self, trace_ratio: float) -> None:
        self.trace_ratio = trace_ratio
        self.traces: Counter[Kept] = Counter()
        """Written, by why."""
        self.sampled_out = 0
        """Events without a trace: the ratio left them out."""
        self.feedback: Counter[str] = Counter()
        """By what became of it: attached, or no_trace."""
        self.cases: Counter[str] = Counter()
        """Curated cases: marked on a trace that was there, or written."""
        self.points = 0
        """Values of metrics written."""
        self.events = 0
        """Control events taken into runs."""
        self.undecodable: Counter[Topic] = Counter()
        self.refused: Counter[str] = Counter()
        """What MLflow does not take, by kind: passed over after it was tried alone."""
        self.failures = 0
        """Calls of MLflow that failed, and were made again."""
        self.available = False
        """Whether the last call succeeded."""
        self.lag: dict[Topic, int] = {}
        """Records that are still to be taken."""
        self.turns = 0
        """Of all loops; stands still when they do."""
        self.joined: set[str] = set()
        """Loops that have joined their groups."""
