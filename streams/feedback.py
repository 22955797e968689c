"""What a batch of feedback says to the gates and the windows."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.feedback_batch import FeedbackFlag, FeedbackRows
from schemas.policy import Metric
from streams.metrics import CANDIDATE, CONTROL

__all__ = ["FEEDBACK_METRICS", "FeedbackSamples"]

Floats = npt.NDArray[np.float64]

_KINDS = {
    Metric.SATISFACTION: FeedbackFlag.USER_RATING,
    # A judge stands in for an expert: both say how right the analysis was.
    Metric.ACCURACY: FeedbackFlag.EXPERT_LABEL | FeedbackFlag.JUDGE_SCORE,
}
FEEDBACK_METRICS = tuple(_KINDS)
"""The metrics that are about feedback, in the order of `FeedbackSamples.totals`."""


class FeedbackSamples:
    """The rows of a batch of feedback, by metric and arm."""

    def __init__(self, rows: FeedbackRows) -> None:
        self.rows = rows
        candidate = rows.has(FeedbackFlag.CANDIDATE)
        sides = {CONTROL: ~candidate, CANDIDATE: candidate}
        self._values: dict[tuple[Metric, int], Floats] = {
            (metric, arm): rows.value[rows.has(kinds) & side].astype(np.float64)
            for metric, kinds in _KINDS.items()
            for arm, side in sides.items()
        }

    def where(self, mask: npt.NDArray[np.bool_]) -> FeedbackSamples:
        """The rows that a boolean array of shape (rows,) selects."""
        return FeedbackSamples(self.rows.where(mask))

    def as_candidate(self) -> FeedbackSamples:
        """The same, as if all of it had been the candidate's: after a promotion it is."""
        flags = self.rows.flags | self.rows.flags.dtype.type(FeedbackFlag.CANDIDATE)
        return FeedbackSamples(msgspec.structs.replace(self.rows, flags=flags))

    def values(self, metric: Metric, arm: int) -> Floats:
        """The values of a metric of feedback in an arm, in [0, 1]."""
        return self._values[metric, arm]

    def totals(self, arm: int) -> Floats:
        """Rows and sum of each metric of `FEEDBACK_METRICS`, shape (metrics, 2)."""
        values = [self._values[metric, arm] for metric in FEEDBACK_METRICS]
        return np.array([(x.size, np.add.reduce(x)) for x in values], dtype=np.float64)
