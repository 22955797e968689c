"""What a worker measures drift with, and when a reference is not for it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from analyzer.drift_map import drift_map, misfit, model_identity
from analyzer.encoder import HashingEncoder
from tests.support.references import reference_file

FILE = reference_file()


class Named(HashingEncoder):
    """Computes as asked, and is called as asked."""

    def __init__(self, fingerprint: str, precision: str = "f32", dimension: int = 384) -> None:
        super().__init__(dimension)
        self.fingerprint, self.precision = fingerprint, precision


def test_a_reference_says_the_map() -> None:
    """Its id, seed, features and bandwidth are those that rows are measured with."""
    encoder, known = HashingEncoder(), FILE.reference.fourier
    found = drift_map(encoder, FILE.centroid_vectors(), FILE.reference)
    assert found.id == FILE.reference.id
    fourier = found.fourier
    assert (fourier.seed, fourier.count, fourier.bandwidth) == (
        known.seed,
        known.count,
        known.bandwidth,
    )
    vectors = encoder.encode(["one", "two"])
    rows = found.rows(vectors)
    assert [row.reference for row in rows] == [found.id] * 2
    assert np.array_equal(np.stack([row.features for row in rows]), fourier.features(vectors))


def test_without_a_reference_all_workers_of_a_model_have_one_map() -> None:
    """The id is the same for two workers, and another for other centroids or another model."""
    centroids = FILE.centroid_vectors()
    found = drift_map(HashingEncoder(), centroids).id
    assert found == drift_map(HashingEncoder(), centroids.copy()).id
    others = {
        drift_map(HashingEncoder(), -centroids).id,
        drift_map(HashingEncoder(), centroids[:1]).id,
        drift_map(Named("other:v1"), centroids).id,
        drift_map(HashingEncoder(), centroids, FILE.reference).id,
    }
    assert len(others - {found}) == 4


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_model_is_the_same_in_any_precision(precision: str) -> None:
    """Workers with different processors measure alike, and one reference is for all of them."""
    encoder = Named(f"5e1f:{precision}:mean", precision)
    assert model_identity(encoder) == "5e1f:mean"
    reference = msgspec.structs.replace(FILE.reference, model="5e1f:mean")
    assert misfit(reference, encoder) is None


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (Named("hashing:2:v1", dimension=2), ["has 384 dimensions", "the model 2"]),
        (Named("other:384:v1"), ["made with model hashing:384:v1", "other:384:v1 serves"]),
    ],
)
def test_another_model_or_dimension_is_named_with_a_cure(
    encoder: HashingEncoder, words: list[str]
) -> None:
    """A reference says nothing about the vectors of another model (M3, M22)."""
    assert misfit(FILE.reference, HashingEncoder()) is None
    problem = misfit(FILE.reference, encoder)
    assert problem is not None
    assert all(word in problem for word in [*words, FILE.reference.id, "driftgate drift calibrate"])
