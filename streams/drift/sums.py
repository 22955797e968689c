"""The sums of Fourier features in a batch, checked, and the map that they were made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.drift import FourierSum, stacked_sums
from schemas.errors import DecodeError
from schemas.log import MeasurementBatch

__all__ = ["ArmSums", "MeasureMap", "SumsByBatch", "measured_alike", "sums_by_batch"]


class ArmSums(NamedTuple):
    """Of one arm."""

    reference: str
    """Id of what its analyzer measures with."""
    rows: int
    """0 where none of them count."""
    values: npt.NDArray[np.float64]


class SumsByBatch(NamedTuple):
    """Of one arm, checked: those of the batches that have any of its rows."""

    reference: str
    batches: list[int]
    """Where among the batches each of them is."""
    rows: list[int]
    values: npt.NDArray[np.float32]
    """Shape (batches with sums, features)."""

    def total(self, fresh: Sequence[bool] | None) -> ArmSums:
        """The sum over batches.

        Args:
            fresh: for each batch whether all of its rows count: a sum cannot be divided. None when
                every one does.
        """
        if fresh is None:
            return ArmSums(self.reference, sum(self.rows), _total(self.values))
        chosen = [place for place, batch in enumerate(self.batches) if fresh[batch]]
        rows = sum(self.rows[place] for place in chosen)
        return ArmSums(self.reference, rows, _total(self.values[chosen]))


def _total(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(np.add.reduce(values, axis=0, dtype=np.float64))


def sums_by_batch(
    batches: Sequence[MeasurementBatch],
) -> tuple[SumsByBatch | None, SumsByBatch | None]:
    """The sums of control and candidate.

    Args:
        batches: that were `measured_alike`.

    Raises:
        DecodeError: bytes that are no such sums, or sums of more rows than there are.
    """
    sizes = [len(batch) for batch in batches]
    control = _checked([batch.control_embeddings for batch in batches], sizes)
    return control, _checked([batch.candidate_embeddings for batch in batches], sizes)


def _checked(sums: Sequence[FourierSum | None], sizes: Sequence[int]) -> SumsByBatch | None:
    places = [place for place, one in enumerate(sums) if one is not None]
    if not places:
        return None
    present = [one for one in sums if one is not None]
    for one, place in zip(present, places, strict=True):
        if one.rows > sizes[place]:
            raise DecodeError(f"Fourier sums of {one.rows} rows in a batch of {sizes[place]}")
    rows = [one.rows for one in present]
    return SumsByBatch(present[0].reference, places, rows, stacked_sums(present))


def measured_alike(batches: Sequence[MeasurementBatch], other: MeasurementBatch) -> bool:
    """Whether one more batch's sums can be added to those of some, as far as there are any."""
    # Looked for only if there is something to compare it with, and then the first one has it.
    if other.control_embeddings and not _alike(
        next((one.control_embeddings for one in batches if one.control_embeddings), None),
        other.control_embeddings,
    ):
        return False
    return not other.candidate_embeddings or _alike(
        next((one.candidate_embeddings for one in batches if one.candidate_embeddings), None),
        other.candidate_embeddings,
    )


def _alike(one: FourierSum | None, other: FourierSum) -> bool:
    return one is None or (one.reference == other.reference and len(one.sums) == len(other.sums))


class MeasureMap(msgspec.Struct, kw_only=True):
    """Which analyzers' embeddings and distances can be compared: those with the same map.

    A reference names its map. Without one it is that of the first analyzer that is heard of; when
    the whole fleet goes over to another (a new model, other domains), the watch follows it.
    """

    id: str | None
    count: int
    """Features of the map."""
    fixed: bool
    """Whether a reference says which."""
    foreign_rows: int = 0
    """Left out, so far."""
    foreign_since_ours: int = 0
    """Left out since there were some that were not."""

    def takes(self, sums: ArmSums | None) -> bool:
        """Whether an arm was measured with this map; the first one that comes becomes it."""
        if sums is None:
            return False
        if self.id is None:
            self.id, self.count = sums.reference, len(sums.values)
        return sums.reference == self.id and len(sums.values) == self.count

    def count_rows(self, ours: bool, foreign: int) -> None:
        """Take note of how many rows of a batch were left out, and whether some were not."""
        self.foreign_rows += foreign
        self.foreign_since_ours = 0 if ours else self.foreign_since_ours + foreign
