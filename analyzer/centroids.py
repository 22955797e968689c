"""Centroids of reference prompts: how far a prompt is from all that the reference knows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

__all__ = ["CENTROIDS", "centroids_of", "distances_apart", "distances_to"]

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

CENTROIDS = 16
"""At most. A single one is far from most of what a service with several topics is asked: of 90
pairs of real topics the second then lies 0.6 standard deviations beyond the first at the least,
with 16 2.3. With 64 it is 3.1, but prompts that were not clustered lie 0.4 beyond those that
were."""
_ROWS_A_CENTROID = 25
"""Fewer rows have fewer centroids: those of a handful of rows are these rows."""
_FOLDS = 5


def centroids_of(vectors: Vectors, seed: int) -> Vectors:
    """Means of clusters, of unit norm; shape (centroids, dimension).

    Args:
        vectors: of unit norm, shape (rows, dimension).
        seed: of the first guess.
    """
    distinct = len(np.unique(vectors, axis=0))
    clusters = max(1, min(CENTROIDS, len(vectors) // _ROWS_A_CENTROID, distinct))
    # On the unit sphere the nearest mean by distance is mostly the nearest by cosine.
    means = KMeans(clusters, n_init=1, random_state=seed).fit(vectors).cluster_centers_
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def distances_to(centroids: Vectors, vectors: Vectors) -> Floats:
    """Cosine distance of each vector to the nearest centroid, shape (rows,)."""
    nearest: Floats = (vectors @ centroids.T).max(axis=1).astype(np.float64)
    return 1.0 - nearest


def distances_apart(vectors: Vectors, seed: int) -> Floats:
    """Distances of rows to the centroids of others: what rows to come will have.

    Those to centroids that a row was part of are too short.

    Args:
        vectors: of unit norm, shape (rows, dimension).
        seed: of the folds and the clusters.
    """
    fold = np.random.default_rng(seed).permutation(len(vectors)) % _FOLDS
    found = np.empty(len(vectors))
    for one in range(_FOLDS):
        centroids = centroids_of(vectors[fold != one], seed)
        found[fold == one] = distances_to(centroids, vectors[fold == one])
    return found
