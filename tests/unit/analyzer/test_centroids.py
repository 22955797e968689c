"""Centroids: the same for the same rows, of unit norm, and no nearer than they should be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from analyzer.centroids import CENTROIDS, centroids_of, distances_apart, distances_to

Vectors = npt.NDArray[np.float32]


def clustered(rows: int, topics: int, seed: int = 1, spread: float = 0.3) -> Vectors:
    """Vectors of unit norm around some directions, in turn."""
    rng = np.random.default_rng(seed)
    middles = np.eye(topics, 32)[np.arange(rows) % topics]
    drawn = middles + spread * rng.standard_normal((rows, 32)) / np.sqrt(32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def test_the_same_seed_makes_the_same_centroids() -> None:
    """A reference can be made again from its prompts."""
    vectors = clustered(600, 5)
    assert np.array_equal(centroids_of(vectors, 3), centroids_of(vectors, 3))
    assert np.array_equal(distances_apart(vectors, 3), distances_apart(vectors, 3))


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 1), (49, 1), (50, 2), (200, 8), (5000, CENTROIDS)]
)
def test_few_rows_have_few_centroids(rows: int, expected: int) -> None:
    """One for 25 rows, at least one and at most 16; each of unit norm."""
    found = centroids_of(clustered(rows, 16), 1)
    assert found.shape == (expected, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


def test_every_topic_has_a_centroid() -> None:
    """Rows of each of eight topics are near to one; of another topic they are far from all."""
    centroids = centroids_of(clustered(400, 8), 1)
    known = distances_to(centroids, clustered(80, 8, seed=2))
    assert known.shape == (80,)
    assert known.max() < 0.3
    other = np.roll(clustered(80, 8, seed=2), 16, axis=1)
    assert distances_to(centroids, other).min() > 0.7


def test_the_distance_is_one_less_the_largest_cosine() -> None:
    """To the nearest, whichever that is; 0 for a centroid itself."""
    centroids = np.eye(3, dtype=np.float32)
    vectors = np.array([[0.0, 1.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.0, -1.0]], np.float32)
    assert distances_to(centroids, vectors).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_distances_of_a_reference_are_those_of_rows_to_come() -> None:
    """Rows that helped to make a centroid are nearer to it than any others will be."""
    vectors = clustered(400, 1, spread=2.0)
    to_come = distances_to(centroids_of(vectors, 1), clustered(400, 1, seed=2, spread=2.0))
    own = distances_to(centroids_of(vectors, 1), vectors)
    apart = distances_apart(vectors, 1)
    assert own.mean() < 0.9 * to_come.mean()
    assert abs(apart.mean() - to_come.mean()) < 0.05 * to_come.mean()
