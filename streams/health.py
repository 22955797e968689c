"""How the analyzers have been since a stage began: crashes, models that are away, memory (M76)."""

from __future__ import annotations

import msgspec
import numpy as np

from schemas.log import Heartbeat, ModelState
from schemas.policy import Metric

__all__ = ["FleetHealth", "MemoryLine"]

MEMORY_POINTS = 64
"""Kept of a worker. A line through more is hardly better known, and a median over all pairs of them
is computed with each heartbeat; fewer would make a leak of a night a few points."""
_LEAST_POINTS = 8
"""Fewer make no line: the first beats of a worker that is starting all lie on a slope."""
_MB = 1e6


class MemoryLine(msgspec.Struct, kw_only=True):
    """Resident memory of one start of a worker, thinned out to a bounded number of points.

    >>> line = MemoryLine(incarnation="a")
    >>> for second in range(600):
    ...     line.add(second * 1000, 300.0 + second * 0.1 + (50.0 if second % 7 == 0 else 0.0))
    >>> round(line.growth_mb), len(line.at_ms) <= MEMORY_POINTS
    (60, True)
    """

    incarnation: str
    at_ms: list[int] = []
    mb: list[float] = []
    stride: int = 1
    """Every so many-th beat is kept; doubled whenever there are too many points."""
    beats: int = 0
    growth_mb: float = 0.0
    """What the memory has risen by along a robust line; negative where it fell."""

    def add(self, at_ms: int, mb: float) -> None:
        """Take a beat at a moment of log time, in ms."""
        if self.beats % self.stride == 0:
            self.at_ms.append(at_ms)
            self.mb.append(mb)
            if len(self.at_ms) > MEMORY_POINTS:
                self.at_ms, self.mb = self.at_ms[::2], self.mb[::2]
                self.stride *= 2
            self.growth_mb = _growth(self.at_ms, self.mb)
        self.beats += 1


def _growth(at_ms: list[int], mb: list[float]) -> float:
    """The median slope of all pairs of points (Theil 1950; Sen 1968), times the time they span.

    Up to a third of the points may be anything.
    """
    if len(at_ms) < _LEAST_POINTS:
        return 0.0
    at, level = np.array(at_ms, dtype=np.float64), np.array(mb)
    earlier, later = np.triu_indices(len(at), 1)
    apart = at[later] - at[earlier]
    # Beats may share a moment of log time.
    slopes = (level[later] - level[earlier])[apart > 0] / apart[apart > 0]
    return float(np.median(slopes) * (at[-1] - at[0])) if slopes.size else 0.0


class FleetHealth(msgspec.Struct, kw_only=True):
    """What heartbeats have said since the stage began, or since a gate's warm-up ended."""

    crashes: int = 0
    beats: int = 0
    memory: dict[str, MemoryLine] = {}
    """By worker; of its present start."""
    unavailable_since_ms: dict[str, int] = {}
    """By worker; of those that have no model."""

    def heard(self, beat: Heartbeat, now_ms: int) -> None:
        """Take a heartbeat."""
        self.beats += 1
        if beat.model is ModelState.UNAVAILABLE:
            self.unavailable_since_ms.setdefault(beat.worker_id, now_ms)
        else:
            self.unavailable_since_ms.pop(beat.worker_id, None)

    def weighed(self, beat: Heartbeat, now_ms: int) -> None:
        """Take the memory of a heartbeat: apart from the rest, since it has a warm-up."""
        line = self.memory.get(beat.worker_id)
        if line is None or line.incarnation != beat.incarnation:
            line = self.memory[beat.worker_id] = MemoryLine(incarnation=beat.incarnation)
        line.add(now_ms, beat.rss_bytes / _MB)

    def gone(self, worker_id: str) -> None:
        """Forget a worker that is not there any more."""
        self.memory.pop(worker_id, None)
        self.unavailable_since_ms.pop(worker_id, None)

    def value(self, metric: Metric, now_ms: int) -> tuple[float, int]:
        """A metric of health, and how many heartbeats it rests on.

        Args:
            metric: one with ``is_health``.
            now_ms: log time.
        """
        match metric:
            case Metric.WORKER_CRASHES:
                return float(self.crashes), self.beats
            case Metric.MODEL_UNAVAILABLE_SECONDS:
                since = self.unavailable_since_ms.values()
                return max((now_ms - at for at in since), default=0) / 1000, self.beats
            case Metric.MEMORY_GROWTH_MB:
                lines = self.memory.values()
                grown = max((line.growth_mb for line in lines), default=0.0)
                return grown, max((line.beats for line in lines), default=0)
            case _:
                raise ValueError(f"{metric} is no metric of health")
