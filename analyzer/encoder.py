"""The port that turns texts into vectors, and its in-memory implementation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import mmh3
import numpy as np
import numpy.typing as npt

from analyzer.encoder_torch import SentenceTransformerEncoder
from analyzer.model import DIMENSION

__all__ = ["Encoder", "HashingEncoder", "SentenceTransformerEncoder", "Vectors"]

Vectors = npt.NDArray[np.float32]

_WORD = re.compile(r"\w+")


class Encoder(Protocol):
    """Texts to vectors. Every implementation passes tests/contract/test_encoders.py."""

    @property
    def name(self) -> str:
        """For logs and heartbeats."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def precision(self) -> str:
        """What is computed in: ``f32`` or ``bf16``."""

    @property
    def fingerprint(self) -> str:
        """Equal for encoders whose vectors may stand for each other: what a cache is keyed by."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of unit L2 norm.

        A vector depends on its text alone: neither on the others nor on their order.

        Args:
            texts: any number, also none; each of any length, also empty.

        Returns:
            Shape (texts, dimension), in the order of the texts.

        Raises:
            AnalyzerError: it cannot be done now.
        """


class HashingEncoder:
    """Feature hashing of words and their trigrams: real vectors without a model.

    Texts that share words are alike, so that everything behind an encoder can be run in
    microseconds. It knows no synonyms.

    Args:
        dimension: length of the vectors.

    Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009.

    >>> vectors = HashingEncoder().encode(["sort a list", "sort the list", "bake bread"])
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    True
    """

    def __init__(self, dimension: int = DIMENSION) -> None:
        self.name = "hashing"
        self.dimension = dimension
        self.precision = "f32"
        self.fingerprint = f"hashing:{dimension}:v1"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See :class:`Encoder`."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            # A feature that every text has keeps the norm of an empty one above zero.
            vectors[row, 0] = 0.1
            for word in _WORD.findall(text.lower()):
                self._add(vectors[row], word, 1.0)
                for start in range(len(word) - 2):
                    self._add(vectors[row], word[start : start + 3] + "#", 0.3)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= norms
        return vectors

    def _add(self, vector: Vectors, feature: str, weight: float) -> None:
        value = mmh3.hash(feature, signed=False)
        vector[1 + (value >> 1) % (self.dimension - 1)] += weight if value & 1 else -weight
