"""Random Fourier features: the same map everywhere, and sums that lose nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from analyzer.fourier import FEATURES, FourierMap, fourier_sum
from schemas.drift import stacked_sums

Vectors = npt.NDArray[np.float32]


def unit_vectors(rows: int, dimension: int = 32, seed: int = 1) -> Vectors:
    """Vectors of unit norm."""
    drawn = np.random.default_rng(seed).standard_normal((rows, dimension))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def test_a_seed_is_one_map() -> None:
    """Two workers with one seed measure alike, to the bit; with another seed they do not."""
    vectors = unit_vectors(5)
    found = FourierMap(32, seed=3).features(vectors)
    assert np.array_equal(found, FourierMap(32, seed=3).features(vectors))
    assert not np.allclose(found, FourierMap(32, seed=4).features(vectors), atol=0.01)


def test_the_numbers_of_a_seed_are_those_of_all_versions() -> None:
    """References outlive a NumPy: the old generator's first normals of seed 1."""
    drawn = np.array([1.62434536, -0.61175641, -0.52817175, -1.07296862])
    found = FourierMap(1, seed=1, count=8, bandwidth=2.0).features(np.ones((1, 1), np.float32))[0]
    expected = np.concatenate([np.cos(drawn / 2), np.sin(drawn / 2)]) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("count", [16, FEATURES])
def test_features_of_a_vector_have_norm_1(count: int) -> None:
    """That is what the monitor's bounds on sums rest on."""
    found = FourierMap(32, count=count).features(unit_vectors(50))
    assert found.shape == (50, count)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    assert np.abs(found).max() <= np.sqrt(2 / count) * (1 + 1e-5)


@pytest.mark.parametrize("bandwidth", [0.7, 1.4])
def test_products_are_the_gaussian_kernel(bandwidth: float) -> None:
    """With many features, to 5 standard errors (Rahimi and Recht, 2007)."""
    vectors = unit_vectors(20)
    found = FourierMap(32, count=20_000, bandwidth=bandwidth).features(vectors)
    squares = 2.0 - 2.0 * vectors @ vectors.T
    kernel = np.exp(-squares / (2.0 * bandwidth**2))
    np.testing.assert_allclose(found @ found.T, kernel, atol=5 * np.sqrt(0.5 / 10_000))


def test_a_row_does_not_depend_on_the_others() -> None:
    """A prompt in a batch has the features that it has alone, to the bit."""
    mapped, vectors = FourierMap(32), unit_vectors(40)
    alone = [mapped.features(vectors[row : row + 1])[0] for row in range(40)]
    assert np.array_equal(mapped.features(vectors), np.stack(alone))
    assert np.array_equal(mapped.features(list(vectors)), np.stack(alone))


def test_the_sum_is_that_of_the_single_rows() -> None:
    """As the monitor reads it: float32 of the exact sum."""
    features = FourierMap(32).features(unit_vectors(300))
    made = fourier_sum("a" * 16, features)
    assert made is not None
    assert (made.reference, made.rows) == ("a" * 16, 300)
    parts = [fourier_sum("a" * 16, features[row : row + 1]) for row in range(300)]
    singles = stacked_sums([one for one in parts if one is not None])
    assert len(singles) == 300
    np.testing.assert_allclose(stacked_sums([made])[0], singles.sum(axis=0), atol=1e-4)


def test_no_rows_have_no_sum() -> None:
    """Then nothing is written into the log."""
    assert fourier_sum("a" * 16, np.empty((0, FEATURES), np.float32)) is None
