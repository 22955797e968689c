"""Random Fourier features of embeddings: their sums are all that the monitor needs to see drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.drift import FourierSum

__all__ = [
    "DEFAULT_BANDWIDTH",
    "DEFAULT_SEED",
    "FEATURES",
    "FourierMap",
    "FourierRow",
    "fourier_sum",
]

Vectors = npt.NDArray[np.float32]

FEATURES = 512
"""Half as many see a fifth of another topic half as well; twice as many, a tenth better."""
DEFAULT_SEED = 0
DEFAULT_BANDWIDTH = 1.0
"""Without a reference. Two prompts of all-MiniLM-L6-v2 are 1.2 to 1.3 apart, and what is seen
hardly changes between 0.7 and 1.4."""


class FourierMap:
    """The map from vectors to features.

    Args:
        dimension: of the vectors.
        seed: which map; the same seed is the same map, on every machine.
        count: of features, even.
        bandwidth: of the Gaussian kernel, in the distance of two vectors.

    Source: see :class:`schemas.drift.FourierReference`.

    >>> vectors = np.array([[0.6, 0.8], [0.8, 0.6]], np.float32)
    >>> features = FourierMap(2, count=1024).features(vectors)
    >>> kernel = np.exp(-0.08 / 2)  # their squared distance is 0.08
    >>> bool(abs(features[0] @ features[1] - kernel) < 0.01)
    True
    """

    def __init__(
        self,
        dimension: int,
        *,
        seed: int = DEFAULT_SEED,
        count: int = FEATURES,
        bandwidth: float = DEFAULT_BANDWIDTH,
    ) -> None:
        # The old generator: NumPy promises its numbers for all versions to come, those of the new
        # one for none. Maps of two workers must be the same.
        drawn = np.random.RandomState(seed).standard_normal((dimension, count // 2))
        self._frequencies = np.ascontiguousarray(drawn / bandwidth, np.float32)
        self._scale = np.float32(np.sqrt(2.0 / count))
        self.dimension, self.seed, self.count, self.bandwidth = dimension, seed, count, bandwidth

    def features(self, vectors: Sequence[Vectors] | Vectors) -> Vectors:
        """Shape (vectors, count): cosines, then sines; each row of norm 1.

        Args:
            vectors: each of shape (dimension,).
        """
        # Row by row: for one product of all rows OpenBLAS wakes its threads, see features.py.
        angles = np.empty((len(vectors), self.count // 2), np.float32)
        for angle, vector in zip(angles, vectors, strict=True):
            np.dot(vector, self._frequencies, out=angle)
        found = np.empty((len(vectors), self.count), np.float32)
        np.cos(angles, out=found[:, : self.count // 2])
        np.sin(angles, out=found[:, self.count // 2 :])
        found *= self._scale
        return found


class FourierRow(NamedTuple):
    """The Fourier features of one prompt's vector."""

    reference: str
    """Id of what they were measured with."""
    features: Vectors


def fourier_sum(reference: str, features: Vectors) -> FourierSum | None:
    """The sum over rows, as it goes into the log; None of no rows.

    Args:
        reference: id of what they were measured with.
        features: of shape (rows, count).
    """
    if not len(features):
        return None
    sums = np.asarray(features.sum(axis=0, dtype=np.float64), "<f4")
    return FourierSum(reference=reference, rows=len(features), sums=sums.tobytes())
