"""Rows in blocks of a fixed length: what detectors take is the mean of each."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_ROWS", "LATENCY_BLOCK", "Blocks", "new_blocks"]

Floats = npt.NDArray[np.float64]

BLOCK_ROWS = 32
"""Rows of a block. Detectors are Python, at 1 to 6 us a number: shorter blocks cost more; longer
ones are seen later, by half a block in the mean. A mean of 32 is close to normal whatever its rows
are, which is what thresholds rest on. Where records end makes no difference."""
LATENCY_BLOCK = 8
"""Records of a block of latencies: the prompts of one record came out of the model together, and
have one latency between them."""


class Blocks(msgspec.Struct, kw_only=True):
    """Rows that do not fill a block yet; changed in place."""

    size: int
    tail: Floats
    """Shape (features, rows left over)."""

    def take(self, values: Floats) -> Floats:
        """Add rows.

        Args:
            values: of shape (features, rows).

        Returns:
            The means of the blocks that are full now, shape (features, blocks).
        """
        if self.tail.shape[1]:
            values = np.concatenate([self.tail, values], axis=1)
        features, rows = values.shape
        blocks = rows // self.size
        used = blocks * self.size
        self.tail = values[:, used:].copy()
        if not blocks:
            return values[:, :0]
        full = values[:, :used].reshape(features, blocks, self.size)
        return np.asarray(np.add.reduce(full, axis=2) / self.size)


def new_blocks(features: int, size: int) -> Blocks:
    """No rows yet."""
    return Blocks(size=size, tail=np.zeros((features, 0)))
