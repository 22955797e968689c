"""From measured rows to the numbers that are watched."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.drift import DriftArm, DriftFeature
from schemas.log import COLUMNS, RowFlag, Rows
from streams.metrics import CONTROL

__all__ = ["SEMANTIC_FEATURES", "DriftRows"]

Floats = npt.NDArray[np.float64]

SEMANTIC_FEATURES = (
    DriftFeature.RELEVANCE,
    DriftFeature.COHERENCE,
    DriftFeature.SCORE_GAIN,
    DriftFeature.CENTROID_DISTANCE,
)
"""What only rows with a semantic half have."""

# Looked up once: in Python 3.11 each access to a member through its class runs a descriptor.
_DISTANCE, _GAIN = DriftFeature.CENTROID_DISTANCE, DriftFeature.SCORE_GAIN
_COLUMN = {
    DriftFeature.RELEVANCE: "relevance",
    DriftFeature.COHERENCE: "coherence",
    _GAIN: "score",
    _DISTANCE: "centroid_distance",
}

_FLAG_SETS = 256
"""All combinations of the flags that have a meaning: what depends on them is looked up."""
_SHORTEST_S = 1e-5
"""A duration of 0 has no logarithm."""
_EVERY = Rows(
    **{name: np.zeros(_FLAG_SETS, dtype) for name, dtype in COLUMNS.items() if name != "flags"},
    flags=np.arange(_FLAG_SETS, dtype=np.uint16),
)
_CANDIDATE = _EVERY.has(RowFlag.CANDIDATE)
_ACCEPTED = ~_EVERY.has(RowFlag.REJECTED)
_SEMANTIC = _ACCEPTED & _EVERY.has(RowFlag.SEMANTIC)
_OF_ARM = {
    DriftArm.ALL: np.ones(_FLAG_SETS, np.bool_),
    DriftArm.CONTROL: ~_CANDIDATE,
    DriftArm.CANDIDATE: _CANDIDATE,
}


def _table(rows: npt.NDArray[np.bool_]) -> dict[DriftArm, npt.NDArray[np.bool_]]:
    return {arm: np.ascontiguousarray(rows & of_arm) for arm, of_arm in _OF_ARM.items()}


_SEMANTIC_OF = _table(_SEMANTIC)
_ACCEPTED_OF = _table(_ACCEPTED)


class DriftRows:
    """The rows of one arm in a batch.

    Args:
        rows: of a batch.
        arm: whose rows are watched.
    """

    def __init__(self, rows: Rows, arm: DriftArm) -> None:
        self._rows = rows
        self._arm = arm
        self._flags = rows.flags.astype(np.uint8)
        self._semantic = _SEMANTIC_OF[arm].take(self._flags).nonzero()[0]

    @property
    def semantic(self) -> int:
        """Rows with a semantic half."""
        return self._semantic.size

    def semantic_values(
        self, features: Sequence[DriftFeature], placed: tuple[bool, bool]
    ) -> Floats:
        """The features of the rows with a semantic half; NaN where a row lacks one.

        Args:
            features: of :data:`SEMANTIC_FEATURES`.
            placed: for control and candidate whether the distance of their rows is to the
                centroids that are watched.

        Returns:
            Shape (features, semantic rows).
        """
        rows, index = self._rows, self._semantic
        part = index.size < len(rows)
        values = np.empty((len(features), index.size))
        for place, feature in enumerate(features):
            column = getattr(rows, _COLUMN[feature])
            values[place] = column.take(index) if part else column
            if feature is _GAIN:
                values[place] -= rows.rules_score.take(index) if part else rows.rules_score
            elif feature is _DISTANCE and not all(placed):
                candidate = _CANDIDATE.take(self._flags).take(index)
                values[place, candidate if placed[CONTROL] else ~candidate] = np.nan
                if not any(placed):
                    values[place] = np.nan
        return values

    def lengths(self) -> Floats:
        """ln(1 + characters) of the accepted rows, shape (1, rows)."""
        index = _ACCEPTED_OF[self._arm].take(self._flags).nonzero()[0]
        chars = self._rows.prompt_chars
        if index.size < len(chars):
            chars = chars.take(index)
        return np.log1p(chars, dtype=np.float64)[None]

    def log_latency(self) -> float:
        """ln(mean processing seconds) of the rows with a semantic half, at least one."""
        seconds = np.add.reduce(self._rows.processing_seconds.take(self._semantic))
        return math.log(max(float(seconds) / self._semantic.size, _SHORTEST_S))
