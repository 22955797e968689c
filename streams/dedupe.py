"""Counting each prompt once: rows whose source position was counted before are dropped."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from schemas.feedback_batch import FeedbackRows
from schemas.log import Rows

__all__ = ["new_rows"]

AnyRows = TypeVar("AnyRows", Rows, FeedbackRows)


def new_rows(rows: AnyRows, source_topic: str, seen: dict[str, int]) -> AnyRows:
    """The rows that were not counted yet; afterwards they are.

    A worker, or a curator, delivers its batch before it commits its offsets, so within a source
    partition a batch never begins beyond what was delivered before: one high-water mark a
    partition is enough.

    Args:
        rows: a batch's rows, offsets rising within a partition.
        source_topic: the topic that they came from.
        seen: the next expected offset by ``topic/partition``; changed in place.
    """
    if len(rows) and bool((rows.partition == rows.partition[0]).all()):
        # One partition, offsets rising: mostly all of it is new.
        key = f"{source_topic}/{rows.partition[0]}"
        expected, first = seen.get(key, 0), int(rows.offset[0])
        seen[key] = max(expected, int(rows.offset[-1]) + 1)
        return rows if first >= expected else rows.where(rows.offset >= expected)
    fresh = np.zeros(len(rows), np.bool_)
    for partition in np.unique(rows.partition):
        key = f"{source_topic}/{partition}"
        here = rows.partition == partition
        fresh |= here & (rows.offset >= seen.get(key, 0))
        seen[key] = max(seen.get(key, 0), int(rows.offset[here].max()) + 1)
    return rows if fresh.all() else rows.where(fresh)
