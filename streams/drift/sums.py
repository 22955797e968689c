"""The sums of Fourier features in a batch, checked, and the map that they were made with."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.drift import FourierSum
from schemas.errors import DecodeError
from schemas.log import MeasurementBatch

__all__ = ["ArmSums", "MeasureMap", "embedding_sums"]


class ArmSums(NamedTuple):
    """Of one arm."""

    reference: str
    """Id of what its analyzer measures with."""
    rows: int
    values: npt.NDArray[np.float32]


def embedding_sums(batch: MeasurementBatch, rows: int) -> tuple[ArmSums | None, ArmSums | None]:
    """The sums of control and candidate.

    Args:
        batch: as it came.
        rows: of the batch.

    Raises:
        DecodeError: bytes that are no such sums, or sums of more rows than there are.
    """
    return _checked(batch.control_embeddings, rows), _checked(batch.candidate_embeddings, rows)


def _checked(sums: FourierSum | None, rows: int) -> ArmSums | None:
    if sums is None:
        return None
    if sums.rows > rows:
        raise DecodeError(f"Fourier sums of {sums.rows} rows in a batch of {rows}")
    return ArmSums(sums.reference, sums.rows, sums.values())


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
