"""Cosine, dot and Euclidean similarity, of vectors and of rows."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.similarity import SIMILARITIES, cosine, dot, euclidean

LEFT = np.array([[1, 0], [0, 2], [0, 0]], dtype=np.float32)
RIGHT = np.array([[1, 0], [3, 0], [1, 1]], dtype=np.float32)


def test_each_measure_of_rows() -> None:
    """Equal, orthogonal, and a zero vector."""
    assert cosine(LEFT, RIGHT).tolist() == [1.0, 0.0, 0.0]
    assert dot(LEFT, RIGHT).tolist() == [1.0, 0.0, 0.0]
    assert euclidean(LEFT, RIGHT) == pytest.approx([1.0, 1 / (1 + 13**0.5), 1 / (1 + 2**0.5)])


@pytest.mark.parametrize("name", sorted(SIMILARITIES))
def test_a_single_vector_gives_a_single_value(name: str) -> None:
    """The same value as in a row, and the same in either order."""
    measure = SIMILARITIES[name]
    assert measure(LEFT[1], RIGHT[1]).shape == ()
    assert measure(LEFT[1], RIGHT[1]) == measure(LEFT, RIGHT)[1]
    assert measure(LEFT[1], RIGHT[1]) == measure(RIGHT[1], LEFT[1])
