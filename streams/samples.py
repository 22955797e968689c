"""What a batch says to the gates and the windows, each number of it computed once."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.log import COLUMNS, RowFlag, Rows
from schemas.policy import Metric
from streams.metrics import metric_samples

__all__ = ["COUNTS", "FLAG_SETS", "Samples"]

FLAG_SETS = 256
"""All combinations of the flags that have a meaning."""

COUNTS = (
    "prompts",
    "rejected",
    "system_errors",
    "semantic_prompts",
    "semantic_errors",
    "cache_lookups",
    "cache_hits",
)
"""What is counted of the rows of an arm in a window; all of it follows from their flags."""

_EVERY = Rows(
    **{name: np.zeros(FLAG_SETS, dtype) for name, dtype in COLUMNS.items() if name != "flags"},
    flags=np.arange(FLAG_SETS, dtype=np.uint16),
)
"""A row with each set of flags: what depends on the flags alone is looked up by them."""

_CANDIDATE = _EVERY.has(RowFlag.CANDIDATE)
_REJECTED = _EVERY.has(RowFlag.REJECTED)
_SEMANTIC = _EVERY.has(RowFlag.SEMANTIC)
_ARMS = (~_CANDIDATE, _CANDIDATE)
# A rejected row has no arm, and is shown with control, unless it is one that we failed on.
_ARMED = _CANDIDATE & (~_REJECTED | _EVERY.has(RowFlag.SYSTEM_ERROR))
_SHOWN = (~_ARMED, _ARMED)
_COUNTED = np.stack(
    [
        ~_REJECTED,
        _REJECTED,
        _EVERY.has(RowFlag.SYSTEM_ERROR),
        _SEMANTIC,
        _EVERY.has(RowFlag.FALLBACK),
        _EVERY.has(RowFlag.CACHE_LOOKUP),
        _EVERY.has(RowFlag.CACHE_HIT),
    ],
    axis=1,
)
_MEANT = ~_REJECTED | _EVERY.has(RowFlag.SYSTEM_ERROR)
"""Rows that any metric could be about."""

_RATES = [metric for metric in Metric if metric.is_rate]
_SCALARS = ("processing_seconds", "rules_score", "score", "coherence", "relevance")
_FIRST_SEMANTIC = 3
_PLACE = {name: place for place, name in enumerate(_SCALARS)}


def _count_table() -> npt.NDArray[np.float64]:
    """Columns: the counts of either arm, rows meant of either, rows and hits of each rate."""
    columns = [shown[:, None] & _COUNTED for shown in _SHOWN]
    columns += [np.stack([_MEANT & arm for arm in _ARMS], axis=1)]
    for metric in _RATES:
        values, valid = metric_samples(metric, _EVERY)
        for arm in _ARMS:
            columns.append(np.stack([valid & arm, valid & arm & (values > 0)], axis=1))
    return np.ascontiguousarray(np.concatenate(columns, axis=1).astype(np.float64))


_TABLE = _count_table()
_SHOWN_AT = (0, len(COUNTS))
_MEANT_AT = 2 * len(COUNTS)
_RATES_AT = {metric: _MEANT_AT + 2 + 4 * i for i, metric in enumerate(_RATES)}
_ACCEPTED_OF = [np.ascontiguousarray(~_REJECTED & arm) for arm in _ARMS]
_SEMANTIC_OF = [np.ascontiguousarray(_SEMANTIC & arm) for arm in _ARMS]
_SEMANTIC_SHOWN = [np.ascontiguousarray(_SEMANTIC & arm) for arm in _SHOWN]

Floats = npt.NDArray[np.float64]


class Samples:
    """The rows of a batch, by arm.

    Equal to `streams.metrics.metric_samples` and `gate_samples` on the same rows, to the bit.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._flags = rows.flags.astype(np.uint8)
        # Counts are whole numbers far below 2**53, so a product of floats is exact.
        sets = np.bincount(self._flags, minlength=FLAG_SETS).astype(np.float64)
        self._counts: list[int] = (sets @ _TABLE).astype(np.int64).tolist()
        self._parts: dict[tuple[int, bool], tuple[Floats, ...]] = {}

    def where(self, mask: npt.NDArray[np.bool_]) -> Samples:
        """The rows that a boolean array of shape (rows,) selects."""
        return Samples(self.rows.where(mask))

    def as_candidate(self) -> Samples:
        """The same, as if all of it had been the candidate's: after a promotion it is."""
        flags = self.rows.flags | self.rows.flags.dtype.type(RowFlag.CANDIDATE)
        return Samples(msgspec.structs.replace(self.rows, flags=flags))

    def shown(self, arm: int) -> int:
        """Rows that are shown with an arm in the windows."""
        at = _SHOWN_AT[arm]
        return self._counts[at] + self._counts[at + 1]

    def counts(self, arm: int) -> list[int]:
        """`COUNTS` of the rows that are shown with an arm."""
        at = _SHOWN_AT[arm]
        return self._counts[at : at + len(COUNTS)]

    def meant(self, arm: int) -> int:
        """Rows of an arm that were not refused, or were by a fault of ours."""
        return self._counts[_MEANT_AT + arm]

    def rate(self, metric: Metric, arm: int) -> tuple[int, int]:
        """Rows that a rate is of, and those of them that it counts."""
        at = _RATES_AT[metric] + 2 * arm
        return self._counts[at], self._counts[at + 1]

    def values(self, metric: Metric, arm: int) -> Floats:
        """The values of a metric that is no rate, of the rows of an arm that have one."""
        place = _PLACE[metric]
        if place >= _FIRST_SEMANTIC:
            return self._part(arm, semantic=True)[place - _FIRST_SEMANTIC]
        return self._part(arm, semantic=False)[place]

    def rules_scores(self, arm: int) -> Floats:
        """The rules score of the rows whose score `values` gives."""
        return self._part(arm, semantic=False)[1]

    def sums(self, arm: int) -> list[float]:
        """Sums of the scalars of the rows shown with an arm, in the order of `panes.SUMS`."""
        accepted = self._part(arm, semantic=False)
        semantic = self._part(arm, semantic=True)
        if self._counts[_SHOWN_AT[arm] + 3] != semantic[0].size:
            # Rejected rows with the flag: shown with the control arm, whatever theirs.
            index = np.flatnonzero(_SEMANTIC_SHOWN[arm][self._flags])
            columns = (self.rows.coherence, self.rows.relevance)
            semantic = tuple(column[index].astype(np.float64) for column in columns)
        return [float(np.add.reduce(x)) for x in (*accepted, *semantic)]

    def _part(self, arm: int, *, semantic: bool) -> tuple[Floats, ...]:
        key = (arm, semantic)
        if key not in self._parts:
            table = _SEMANTIC_OF if semantic else _ACCEPTED_OF
            index = table[arm].take(self._flags).nonzero()[0]
            names = _SCALARS[_FIRST_SEMANTIC:] if semantic else _SCALARS[:_FIRST_SEMANTIC]
            everyone = index.size == len(self.rows)
            columns = [getattr(self.rows, name) for name in names]
            self._parts[key] = tuple(
                (column if everyone else column.take(index)).astype(np.float64)
                for column in columns
            )
        return self._parts[key]
