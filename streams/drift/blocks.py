"""Rows in blocks of a fixed length: what detectors take is the mean of each."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_ROWS", "LATENCY_BLOCK", "Blocks", "RecordBlock", "new_blocks"]

Floats = npt.NDArray[np.float64]

BLOCK_ROWS = 32
"""Rows of a block. Detectors are Python, at 1 to 6 us a number: shorter blocks cost more; longer
ones are seen later, by half a block in the mean. A mean of 32 is close to normal whatever its rows
are, which is what thresholds rest on."""
LATENCY_BLOCK = 8
"""Looks of a block of latencies: the prompts of one batch came out of the model together, and have
one latency between them; batches that are counted together are one look, too."""


class Blocks(msgspec.Struct, kw_only=True):
    """Cuts rows into blocks, wherever records end; changed in place."""

    size: int
    """Rows of a block."""
    sums: Floats
    """Of the rows that do not fill a block yet, shape (features,)."""
    filled: int = 0
    """How many those are."""

    def take(self, values: Floats) -> Floats:
        """Add rows.

        Args:
            values: of shape (features, rows), at least one row.

        Returns:
            The means of the blocks that are full now, shape (features, blocks).
        """
        rows = values.shape[1]
        first = self.size - self.filled
        if rows < first:
            self.sums += np.add.reduce(values, axis=1)
            self.filled += rows
            return values[:, :0]
        sums = np.add.reduceat(values, [0, *range(first, rows, self.size)], axis=1)
        sums[:, 0] += self.sums
        self.filled = (self.filled + rows) % self.size
        if self.filled:
            self.sums = sums[:, -1].copy()
            sums = sums[:, :-1]
        else:
            self.sums = np.zeros(len(values))
        return np.asarray(sums / self.size)


def new_blocks(features: int, size: int) -> Blocks:
    """No rows yet."""
    return Blocks(size=size, sums=np.zeros(features))


class RecordBlock(msgspec.Struct, kw_only=True):
    """The same for one feature of which each look has one value; changed in place."""

    total: float = 0.0
    records: int = 0
    rows: int = 0
    """That the records stand for."""

    def take(self, value: float, rows: int) -> tuple[float, int] | None:
        """Add a record's value; the mean of a block that is full now, and its rows."""
        self.total += value
        self.records += 1
        self.rows += rows
        if self.records < LATENCY_BLOCK:
            return None
        full = self.total / self.records, self.rows
        self.total, self.records, self.rows = 0.0, 0, 0
        return full
