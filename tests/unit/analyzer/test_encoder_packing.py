"""Packing: every window in one row, rows within their length, and each vector back in its place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from analyzer.encoder_packing import BUDGET_TOKENS, ROW_TOKENS, pack, packed

Tokens = npt.NDArray[np.int64]


@given(st.lists(st.integers(2, 256), max_size=100))
def test_every_window_is_in_one_row(lengths: list[int]) -> None:
    """Rows hold no more than they may; only a single window may be longer."""
    array = np.array(lengths, dtype=np.int64)
    rows = pack(array, ROW_TOKENS)
    assert sorted(window for row in rows for window in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or array[row].sum() <= ROW_TOKENS


@given(st.lists(st.integers(2, ROW_TOKENS), min_size=1, max_size=100))
def test_no_two_rows_would_fit_into_one(lengths: list[int]) -> None:
    """At most one row is half empty, so padding is bounded."""
    array = np.array(lengths, dtype=np.int64)
    filled = sorted(int(array[row].sum()) for row in pack(array, ROW_TOKENS))
    assert all(one + other > ROW_TOKENS for one, other in pairwise(filled))


@given(st.lists(st.lists(st.integers(1, 999), min_size=2, max_size=200), max_size=40))
def test_each_vector_is_its_windows(windows: list[list[int]]) -> None:
    """A graph that sums ids and positions by segment finds those of each window, in its place."""
    shapes = []

    def run(ids: Tokens, positions: Tokens, segments: Tokens, numbers: Tokens) -> npt.NDArray:
        shapes.append(ids.shape)
        belongs = segments[:, None, :] == numbers[None, :, None]
        sums = [(belongs * each[:, None, :]).sum(axis=2) for each in (ids, positions)]
        assert (ids[segments == 0] == 0).all()
        return np.stack(sums, axis=2).astype(np.float32)

    found = packed(run, 2)(windows)
    assert found.tolist() == [
        [sum(window), len(window) * (len(window) - 1) // 2] for window in windows
    ]
    assert all(rows == 1 or rows * width <= BUDGET_TOKENS for rows, width in shapes)
