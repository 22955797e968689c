"""What a worker counts for whoever looks at it from outside: cheap, a batch at a time.

Decisions never rest on these numbers; they rest on the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from schemas.log import MeasurementBatch, RowFlag
from schemas.prompts import Arm, PromptEnriched, PromptRejected

__all__ = ["DELTAS", "SECONDS", "UNITS", "Histogram", "Telemetry"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of durations; 0.5 s is the mission's limit (M32)."""
UNITS = tuple(n / 10 for n in range(1, 11))
"""Upper bounds of scores in [0, 1]."""
DELTAS = tuple(n / 10 for n in range(-10, 11))
"""Upper bounds of differences of scores."""


class Histogram:
    """Counts by upper bound, the last one without a bound.

    Args:
        bounds: rising.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts: npt.NDArray[np.int64] = np.zeros(len(self.bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: npt.ArrayLike) -> None:
        """Count values; those that are no numbers are left out."""
        x = np.asarray(values, np.float64)
        x = x[np.isfinite(x)]
        places = np.searchsorted(self.bounds, x, side="left")
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sum += float(x.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus' buckets: the bound, and how many values were at most that."""
        bounds = [*(repr(bound) for bound in self.bounds), "+Inf"]
        return list(zip(bounds, np.cumsum(self.counts).astype(float).tolist(), strict=True))


class Telemetry:
    """All that was delivered since the start of the worker; each prompt is counted once."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """Prompts by what became of them: accepted or rejected."""
        self.rejected: Counter[str] = Counter()
        """By code (M13-M15)."""
        self.fallbacks: Counter[str] = Counter()
        """By reason (M64)."""
        self.paths: Counter[str] = Counter()
        """How results came about (M28)."""
        self.cache: dict[Arm, Counter[str]] = {arm: Counter() for arm in Arm}
        """Look-ups of prompts' own vectors, by arm: hit or miss (M18)."""
        self.failed_deliveries = 0
        self.beats = 0
        """Heartbeats sent or tried: a loop that stands still sends none."""
        self.stages = {name: Histogram(SECONDS) for name in ("rules", "embed", "semantic", "all")}
        """Seconds a prompt, by stage; ``all`` from the poll to the result (M16, M17)."""
        self.end_to_end = Histogram(SECONDS)
        """From the producer's event time to the result, where it is known."""
        self.scores = {name: Histogram(UNITS) for name in ("relevance", "coherence", "similarity")}
        self.blend_delta = Histogram(DELTAS)
        """Served score less the rules score."""

    def take(
        self, events: Iterable[PromptEnriched | PromptRejected], measured: MeasurementBatch
    ) -> None:
        """Count a batch that was delivered.

        Args:
            events: its results.
            measured: its rows.
        """
        enriched = []
        for event in events:
            if isinstance(event, PromptRejected):
                self.rejected[str(event.code)] += 1
                continue
            enriched.append(event)
            self.paths[str(event.path)] += 1
            if event.fallback_reason is not None:
                self.fallbacks[str(event.fallback_reason)] += 1
        self._time(enriched)
        similar = [e.semantic.domain_cosine for e in enriched if e.semantic is not None]
        self.scores["similarity"].add(similar)
        rows = measured.rows()
        accepted = rows.where(~rows.has(RowFlag.REJECTED))
        self.outcomes["accepted"] += len(accepted)
        self.outcomes["rejected"] += len(rows) - len(accepted)
        semantic = accepted.where(accepted.has(RowFlag.SEMANTIC))
        self.scores["relevance"].add(semantic.relevance)
        self.scores["coherence"].add(semantic.coherence)
        self.blend_delta.add(semantic.score.astype(np.float64) - semantic.rules_score)
        looked_up = semantic.where(semantic.has(RowFlag.CACHE_LOOKUP))
        hit, candidate = looked_up.has(RowFlag.CACHE_HIT), looked_up.has(RowFlag.CANDIDATE)
        for arm, own in ((Arm.CONTROL, ~candidate), (Arm.CANDIDATE, candidate)):
            self.cache[arm]["hit"] += int(np.count_nonzero(own & hit))
            self.cache[arm]["miss"] += int(np.count_nonzero(own & ~hit))

    def _time(self, enriched: Sequence[PromptEnriched]) -> None:
        timings = [e.timings for e in enriched]
        self.stages["rules"].add([t.rules_seconds for t in timings])
        embedded = [e.timings for e in enriched if e.semantic is not None]
        self.stages["embed"].add([t.embed_seconds for t in embedded])
        self.stages["semantic"].add([t.semantic_seconds for t in embedded])
        self.stages["all"].add([t.processing_seconds for t in timings])
        self.end_to_end.add(
            [t.queue_seconds + t.processing_seconds for t in timings if t.queue_seconds is not None]
        )
