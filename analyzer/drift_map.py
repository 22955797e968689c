"""What a worker measures drift with: the map of the drift reference, or the one that all have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analyzer.encoder import Encoder, Vectors
from analyzer.fourier import FourierMap, FourierRow
from schemas.drift import DriftReference
from schemas.drift_reference import map_id

__all__ = ["DriftMap", "drift_map", "misfit", "model_identity"]


class DriftMap(NamedTuple):
    """Prompts of two workers can be compared when the ids of their maps are equal."""

    id: str
    fourier: FourierMap

    def rows(self, vectors: Sequence[Vectors]) -> list[FourierRow]:
        """The features of vectors, one row each."""
        return [FourierRow(self.id, row) for row in self.fourier.features(vectors)]


def drift_map(
    encoder: Encoder, centroids: Vectors, reference: DriftReference | None = None
) -> DriftMap:
    """The map of a reference; without one, the map that all workers of this model have.

    Args:
        encoder: that serves.
        centroids: that distances are measured to, shape (centroids, dimension).
        reference: made with this encoder's model.
    """
    if reference is not None:
        known = reference.fourier
        fourier = FourierMap(
            encoder.dimension, seed=known.seed, count=known.count, bandwidth=known.bandwidth
        )
        return DriftMap(reference.id, fourier)
    fourier = FourierMap(encoder.dimension)
    id = map_id(
        model_identity(encoder),
        centroids,
        seed=fourier.seed,
        count=fourier.count,
        bandwidth=fourier.bandwidth,
    )
    return DriftMap(id, fourier)


def misfit(reference: DriftReference, encoder: Encoder) -> str | None:
    """Why a reference cannot be used with an encoder, and what to do; None when it can."""
    cure = "make one with this model: driftgate drift calibrate PROMPTS.jsonl --out FILE"
    if reference.dimension != encoder.dimension:
        return (
            f"drift reference {reference.id} has {reference.dimension} dimensions, the model "
            f"{encoder.dimension}; {cure}"
        )
    if reference.model != model_identity(encoder):
        return (
            f"drift reference {reference.id} was made with model {reference.model}, and "
            f"{model_identity(encoder)} serves; {cure}"
        )
    return None


def model_identity(encoder: Encoder) -> str:
    """Equal for encoders of one model, whatever they compute in: their vectors are so alike.

    >>> from analyzer.encoder import HashingEncoder
    >>> model_identity(HashingEncoder())
    'hashing:384:v1'
    """
    return encoder.fingerprint.replace(f":{encoder.precision}", "", 1)
