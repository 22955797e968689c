"""Panes: what was measured in one step of log time, and windows made by adding panes up."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.log import RowFlag
from schemas.policy import Gate, Metric, Statistic
from streams.feedback import FEEDBACK_METRICS, FeedbackSamples
from streams.metrics import CANDIDATE, CONTROL, gate_samples
from streams.samples import COUNTS, Samples
from streams.segments import BySegment

__all__ = [
    "COUNTS",
    "SUMS",
    "ArmTotals",
    "Pane",
    "merge_totals",
    "new_pane",
    "quantile",
]

SUMS = ("processing_seconds", "rules_score", "score", "coherence", "relevance")

_LOWEST_SECONDS = 1e-5
_GROWTH = 1.04
"""Ratio of neighbouring bucket limits: a quantile is exact to 2 %."""
_BUCKETS = 420
"""10 us to 140 s; what is outside counts in the first or last bucket."""
_LOG_LOWEST = float(np.log(_LOWEST_SECONDS))
_LOG_GROWTH = float(np.log(_GROWTH))


class ArmTotals(msgspec.Struct):
    """Sums over the rows of one arm and segment."""

    counts: npt.NDArray[np.int64]
    """Shape (len(COUNTS),)."""
    sums: npt.NDArray[np.float64]
    """Shape (len(SUMS),)."""
    histogram: npt.NDArray[np.int64]
    """Processing seconds in logarithmic buckets; shape (420,)."""
    feedback: npt.NDArray[np.float64]
    """Rows and sum of each metric of `FEEDBACK_METRICS`; shape (metrics, 2)."""

    @classmethod
    def zero(cls) -> ArmTotals:
        """Totals of no rows."""
        return cls(
            counts=np.zeros(len(COUNTS), np.int64),
            sums=np.zeros(len(SUMS), np.float64),
            histogram=np.zeros(_BUCKETS, np.int64),
            feedback=np.zeros((len(FEEDBACK_METRICS), 2)),
        )

    def add(self, other: ArmTotals) -> None:
        """Add other rows' totals to these."""
        self.counts += other.counts
        self.sums += other.sums
        self.histogram += other.histogram
        self.feedback += other.feedback

    def add_samples(self, samples: Samples, arm: int) -> None:
        """Count the rows of one segment that are shown with an arm."""
        self.counts += samples.counts(arm)
        self.sums += samples.sums(arm)
        seconds = samples.values(Metric.PROCESSING_SECONDS, arm)
        # As precise as they were measured, whose logarithm takes a fraction of the time.
        logs = np.log(np.maximum(seconds, _LOWEST_SECONDS).astype(np.float32))
        bucket = (logs - _LOG_LOWEST) / _LOG_GROWTH
        # Not np.clip, which takes three times as long on so few numbers.
        index = np.minimum(bucket, _BUCKETS - 1.0).astype(np.intp)
        self.histogram += np.bincount(index, minlength=_BUCKETS)


def quantile(histogram: npt.NDArray[np.int64], q: float) -> float | None:
    """The q-quantile in seconds of a latency histogram, to 2 %; None when it is empty.

    Args:
        histogram: counts of shape (420,).
        q: in (0, 1).
    """
    total = int(histogram.sum())
    if total == 0:
        return None
    index = int(np.searchsorted(np.cumsum(histogram), q * total))
    return float(_LOWEST_SECONDS * _GROWTH ** (index + 0.5))


class Pane(msgspec.Struct, kw_only=True):
    """Everything measured in one step of log time under one rollout revision."""

    start_ms: int
    revision: int
    totals: dict[str, list[ArmTotals]]
    """By segment name; control then candidate."""
    moments: npt.NDArray[np.float64]
    """Count, sum and sum of squares of what each gate is tested on; shape (arms, gates, 3).

    Only of gates whose breach must last: the others look at all evidence since the stage began.
    """

    def add_samples(self, samples: Samples, segments: list[str]) -> None:
        """Count rows into the totals of their arm and segment."""
        column = samples.rows.segment
        present = np.flatnonzero(np.bincount(column)).tolist()
        for index in present:
            totals = self.totals.setdefault(segments[index], [ArmTotals.zero(), ArmTotals.zero()])
            # A service without segments has one, and its rows need not be taken apart.
            here = samples if len(present) == 1 else samples.where(column == index)
            for arm in (CONTROL, CANDIDATE):
                if here.shown(arm):
                    totals[arm].add_samples(here, arm)

    def add_feedback(self, samples: FeedbackSamples, segments: list[str]) -> None:
        """Count feedback into the totals of its arm and segment."""
        column = samples.rows.segment
        for index in np.flatnonzero(np.bincount(column)).tolist():
            totals = self.totals.setdefault(segments[index], [ArmTotals.zero(), ArmTotals.zero()])
            here = samples.where(column == index)
            for arm in (CONTROL, CANDIDATE):
                totals[arm].feedback += here.totals(arm)

    def add_recent(
        self, several: BySegment[Samples], gates: list[Gate], counted: list[bool]
    ) -> None:
        """Add rows to what the gates that look at the running window are tested on.

        Args:
            several: rows made under this pane's revision.
            gates: the policy's gates, in their order.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        for i, gate in enumerate(gates):
            if not (counted[i] and gate.sustained_seconds):
                continue
            samples = several.of(gate.segments)
            if gate.statistic is Statistic.RATE:
                for arm in (CONTROL, CANDIDATE):
                    rows, hits = samples.rate(gate.metric, arm)
                    self.moments[arm, i] += (rows, hits, hits)
                continue
            values, valid = gate_samples(gate, samples.rows)
            candidate = samples.rows.has(RowFlag.CANDIDATE)
            for arm, side in ((CONTROL, ~candidate), (CANDIDATE, candidate)):
                x = values[valid & side]
                self.moments[arm, i] += (len(x), x.sum(), np.dot(x, x))


def new_pane(start_ms: int, revision: int, gates: int) -> Pane:
    """An empty pane."""
    return Pane(start_ms=start_ms, revision=revision, totals={}, moments=np.zeros((2, gates, 3)))


def merge_totals(panes: Iterable[Pane]) -> dict[str, list[ArmTotals]]:
    """The totals of several panes, by segment, control then candidate."""
    merged: dict[str, list[ArmTotals]] = {}
    for pane in panes:
        for segment, arms in pane.totals.items():
            into = merged.setdefault(segment, [ArmTotals.zero(), ArmTotals.zero()])
            for total, add in zip(into, arms, strict=True):
                total.add(add)
    return merged
