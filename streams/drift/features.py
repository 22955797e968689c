"""From measured rows to the numbers that are watched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.drift import DriftArm, DriftFeature
from schemas.log import COLUMNS, RowFlag, Rows

__all__ = ["SEMANTIC_FEATURES", "DriftRows"]

Floats = npt.NDArray[np.float64]

SEMANTIC_FEATURES = (
    DriftFeature.RELEVANCE,
    DriftFeature.COHERENCE,
    DriftFeature.SCORE_GAIN,
    DriftFeature.CENTROID_DISTANCE,
)
"""What only rows with a semantic half have."""

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
_ERROR = _EVERY.has(RowFlag.SYSTEM_ERROR)
_FALLBACK = _EVERY.has(RowFlag.FALLBACK)
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
_FALLIBLE_OF = _table(_ACCEPTED | _ERROR)
_WANTED_OF = _table(_SEMANTIC | (_ACCEPTED & _FALLBACK))
_IS_ERROR = _ERROR.astype(np.float64)
_IS_FALLBACK = _FALLBACK.astype(np.float64)


class DriftRows:
    """The rows of one arm in a batch, each number computed once.

    Args:
        rows: of a batch.
        arm: whose rows are watched.
        placed: for control and candidate whether the distance of their rows is to the centroids
            that are watched.
    """

    def __init__(self, rows: Rows, arm: DriftArm, placed: tuple[bool, bool]) -> None:
        self._rows = rows
        self._arm = arm
        self._placed = placed
        self._flags = rows.flags.astype(np.uint8)
        self._semantic = _SEMANTIC_OF[arm].take(self._flags).nonzero()[0]

    @property
    def semantic(self) -> int:
        """Rows with a semantic half."""
        return self._semantic.size

    def semantic_values(self, features: Sequence[DriftFeature]) -> Floats:
        """Shape (features, semantic rows); NaN where a row lacks the feature."""
        rows, index = self._rows, self._semantic
        everyone = index.size == len(rows)

        def of(column: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return column if everyone else column.take(index)

        values = np.empty((len(features), index.size))
        for place, feature in enumerate(features):
            match feature:
                case DriftFeature.RELEVANCE:
                    values[place] = of(rows.relevance)
                case DriftFeature.COHERENCE:
                    values[place] = of(rows.coherence)
                case DriftFeature.SCORE_GAIN:
                    values[place] = of(rows.score)
                    values[place] -= of(rows.rules_score)
                case DriftFeature.CENTROID_DISTANCE:
                    values[place] = of(rows.centroid_distance)
                    if not all(self._placed):
                        self._displace(values[place])
        return values

    def _displace(self, distances: Floats) -> None:
        """A distance to other centroids is not the feature."""
        candidate = _CANDIDATE.take(self._flags).take(self._semantic)
        for placed, of_arm in zip(self._placed, (~candidate, candidate), strict=True):
            if not placed:
                distances[of_arm] = np.nan

    def lengths(self) -> Floats:
        """ln(1 + characters) of the accepted rows, shape (1, rows)."""
        index = _ACCEPTED_OF[self._arm].take(self._flags).nonzero()[0]
        chars = self._rows.prompt_chars
        if index.size != len(chars):
            chars = chars.take(index)
        return np.log1p(chars, dtype=np.float64)[None]

    def errors(self) -> Floats:
        """Whether we failed on a row, of those on which we could; shape (1, rows)."""
        return self._bits(_FALLIBLE_OF, _IS_ERROR)

    def fallbacks(self) -> Floats:
        """Whether a row got the rules result, of those that wanted more; shape (1, rows)."""
        return self._bits(_WANTED_OF, _IS_FALLBACK)

    def _bits(self, table: dict[DriftArm, npt.NDArray[np.bool_]], bit: Floats) -> Floats:
        chosen = table[self._arm].take(self._flags)
        return bit.take(self._flags[chosen])[None]

    def log_latency(self) -> float | None:
        """Mean ln(processing seconds) of the semantic rows; None without any."""
        if not self._semantic.size:
            return None
        seconds = np.maximum(self._rows.processing_seconds.take(self._semantic), _SHORTEST_S)
        return float(np.add.reduce(np.log(seconds, dtype=np.float64)) / seconds.size)
