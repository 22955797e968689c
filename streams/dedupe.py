"""Counting each prompt once: rows whose source position was counted before are dropped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.feedback_batch import FeedbackRows
from schemas.log import Rows

__all__ = ["new_rows"]


def new_rows(
    rows: Rows | FeedbackRows, source_topic: str, seen: dict[str, int]
) -> npt.NDArray[np.bool_]:
    """Which rows were not counted yet, shape (rows,); afterwards they are.

    A worker, or a curator, delivers its batch before it commits its offsets, so within a source
    partition a batch never begins beyond what was delivered before: one high-water mark a
    partition is enough.

    Args:
        rows: of batches in the order of the log.
        source_topic: the topic that they came from.
        seen: the next expected offset by ``topic/partition``; changed in place.
    """
    fresh = np.empty(len(rows), np.bool_)
    for partition in np.unique(rows.partition).tolist():
        key = f"{source_topic}/{partition}"
        here = np.flatnonzero(rows.partition == partition)
        offsets = rows.offset[here]
        # The mark before each row; a batch that is sent again lies below it.
        marks = np.maximum.accumulate(np.concatenate(([seen.get(key, 0) - 1], offsets)))
        fresh[here] = offsets > marks[:-1]
        seen[key] = int(marks[-1]) + 1
    return fresh
