"""How alike two vectors are, by three measures (M5).

All take one vector, or rows of vectors, of the same dimension, and return one value a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["SIMILARITIES", "Similarity", "cosine", "dot", "euclidean"]

Vectors = npt.NDArray[np.float32]
Similarity = Callable[[Vectors, Vectors], Vectors]


def dot(left: Vectors, right: Vectors) -> Vectors:
    """The inner product; equal to the cosine for vectors of unit norm.

    Args:
        left: shape (d,) or (n, d).
        right: the same shape, or one that broadcasts to it.

    Returns:
        Shape () or (n,).
    """
    return np.asarray(np.einsum("...i,...i->...", left, right), dtype=np.float32)


def cosine(left: Vectors, right: Vectors) -> Vectors:
    """The cosine of the angle, in [-1, 1]; 0 where a vector is zero. Shapes as in :func:`dot`."""
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    products = dot(left, right)
    values = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return np.asarray(np.clip(values, -1.0, 1.0))


def euclidean(left: Vectors, right: Vectors) -> Vectors:
    """1 / (1 + distance), in (0, 1]; 1 for equal vectors. Shapes as in :func:`dot`."""
    distance = np.linalg.norm(np.subtract(left, right), axis=-1)
    return np.asarray(1.0 / (1.0 + distance), dtype=np.float32)


SIMILARITIES: dict[str, Similarity] = {"cosine": cosine, "dot": dot, "euclidean": euclidean}
"""By the names that a configuration uses."""
