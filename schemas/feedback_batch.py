"""Feedback as it stands in `driftgate.log`: columns, one row for each piece of feedback."""

from __future__ import annotations

from enum import IntFlag
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.errors import DecodeError

__all__ = ["FEEDBACK_COLUMNS", "FeedbackBatch", "FeedbackFlag", "FeedbackRows"]


class FeedbackFlag(IntFlag):
    """Bits of a row of feedback: the arm, and exactly one kind."""

    CANDIDATE = 1
    """About a result that green served (otherwise blue, also in shadow)."""
    USER_RATING = 2
    EXPERT_LABEL = 4
    JUDGE_SCORE = 8


_KINDS = np.array([2, 4, 8], dtype=np.uint8)

FEEDBACK_COLUMNS: dict[str, np.dtype[np.generic]] = {
    "partition": np.dtype("<i4"),
    "offset": np.dtype("<i8"),
    "flags": np.dtype("u1"),
    "segment": np.dtype("u1"),
    "revision": np.dtype("<i4"),
    "value": np.dtype("<f4"),
}
"""Column names, in the order of the fields, and their element types."""


class FeedbackRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of feedback as arrays, each of shape (rows,)."""

    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    flags: npt.NDArray[np.uint8]
    segment: npt.NDArray[np.uint8]
    revision: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offset)

    def where(self, mask: npt.NDArray[np.bool_]) -> FeedbackRows:
        """The rows that a boolean array of shape (rows,) selects."""
        return FeedbackRows(**{name: getattr(self, name)[mask] for name in FEEDBACK_COLUMNS})

    def has(self, flag: FeedbackFlag) -> npt.NDArray[np.bool_]:
        """A boolean array of shape (rows,): which rows carry any bit of a flag."""
        return np.asarray((self.flags & np.uint8(flag)) != 0)


class FeedbackBatch(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="feedback_batch"
):
    """The feedback on one service among what the curator read in one poll.

    The revision is a column: feedback comes late, and about results of several revisions.
    """

    service: str
    source_topic: str
    segments: Annotated[list[str], Meta(description="Names that the segment column indexes.")]
    partition: bytes
    offset: bytes
    flags: bytes
    segment: bytes
    revision: bytes
    value: bytes

    def rows(self) -> FeedbackRows:
        """The columns as arrays.

        Raises:
            DecodeError: columns of unequal length, a value outside [0, 1], no kind or several, a
                segment without a name, or offsets that do not rise within their partition.
        """
        columns = {}
        for name, dtype in FEEDBACK_COLUMNS.items():
            data: bytes = getattr(self, name)
            if len(data) != len(self.flags) * dtype.itemsize:
                raise DecodeError(
                    f"column {name}: {len(data)} bytes are not {len(self.flags)} rows of "
                    f"{dtype.itemsize}"
                )
            columns[name] = np.frombuffer(data, dtype=dtype)
        rows = FeedbackRows(**columns)
        if len(rows):
            _check(rows, len(self.segments))
        return rows


def _check(rows: FeedbackRows, segments: int) -> None:
    low, high = float(rows.value.min()), float(rows.value.max())
    # A NaN makes min and max NaN, and each comparison with NaN is false.
    if not (low >= 0.0 and high <= 1.0):
        raise DecodeError(f"column value: {low} to {high} outside [0, 1]")
    kinds = ((rows.flags[:, None] & _KINDS) != 0).sum(axis=1)
    if bool((kinds != 1).any()) or int(rows.flags.max()) > 15:
        raise DecodeError("column flags: a row without a kind, or of several")
    if int(rows.segment.max()) >= segments:
        raise DecodeError(f"column segment: {int(rows.segment.max())} of {segments} segment names")
    if min(int(rows.offset.min()), int(rows.partition.min()), int(rows.revision.min())) < 0:
        raise DecodeError("negative source partition, offset or revision")
    order = np.argsort(rows.partition, kind="stable")
    partition, offset = rows.partition[order], rows.offset[order]
    if bool(((offset[1:] <= offset[:-1]) & (partition[1:] == partition[:-1])).any()):
        raise DecodeError("source offsets do not rise within a partition")
