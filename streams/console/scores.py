"""How scores are distributed, minute by minute, from measured rows (M53, M56, M57)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from schemas.log import RowFlag, Rows
from streams.console.rows import BINS, ScoreCounts

__all__ = ["MINUTE_MS", "score_counts"]

MINUTE_MS = 60_000


def score_counts(rows: Rows, *, service: str, at_ms: int) -> Iterator[ScoreCounts]:
    """The distributions of the semantic rows of a batch, by arm.

    Args:
        rows: that were not counted before.
        service: whose.
        at_ms: broker time of the batch, ms since the epoch; says to which minute they belong.
    """
    semantic = rows.has(RowFlag.SEMANTIC) & ~rows.has(RowFlag.REJECTED)
    candidate = rows.has(RowFlag.CANDIDATE)
    for arm, side in (("control", ~candidate), ("candidate", candidate)):
        here = semantic & side
        count = int(np.count_nonzero(here))
        if count:
            yield ScoreCounts(
                service=service,
                arm=arm,
                minute_ms=at_ms // MINUTE_MS * MINUTE_MS,
                rows=count,
                processing_seconds=float(rows.processing_seconds[here].sum(dtype=np.float64)),
                embed_seconds=float(rows.embed_seconds[here].sum(dtype=np.float64)),
                relevance=_binned(rows.relevance[here]),
                coherence=_binned(rows.coherence[here]),
            )


def _binned(scores: npt.NDArray[np.float32]) -> list[int]:
    """How many scores lie in each part of [0, 1]; 1 itself is in the last one.

    >>> _binned(np.array([0.0, 0.049, 0.05, 1.0], dtype=np.float32))[:2]
    [2, 1]
    """
    places = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
    return [int(n) for n in np.bincount(places, minlength=BINS)]
