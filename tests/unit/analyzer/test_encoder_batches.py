"""Batches by length: every window once, within the budget, and cheap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.encoder_batches import (
    BATCH_COST_TOKENS,
    MAX_TOKENS,
    MAX_WINDOWS,
    WIDTH_STEP,
    WindowEncoder,
    _windows,
    token_batches,
)
from analyzer.errors import EncoderError, ModelError
from analyzer.model import locate_model


def padded(length: int) -> int:
    """A length as it is computed."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP


@given(st.lists(st.integers(2, MAX_TOKENS), max_size=80), st.sampled_from([64, 512, 1024]))
def test_every_window_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    """Sorted by length; only a single window may be above."""
    array = np.array(lengths, dtype=np.int64)
    batches = token_batches(array, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert (np.diff(array[batch]) >= 0).all()
        assert len(batch) == 1 or len(batch) * padded(int(array[batch[-1]])) <= budget


@given(st.lists(st.integers(2, 60), min_size=1, max_size=9))
def test_no_partition_by_length_is_cheaper(lengths: list[int]) -> None:
    """Against all partitions of up to nine windows."""
    array = np.array(lengths, dtype=np.int64)
    ordered = sorted(lengths)

    def cost(groups: list[list[int]]) -> int:
        return sum(len(group) * padded(max(group)) + BATCH_COST_TOKENS for group in groups)

    cheapest = min(
        cost(groups)
        for groups in (_cut(ordered, cuts) for cuts in range(2 ** (len(ordered) - 1)))
        if all(len(group) == 1 or len(group) * padded(max(group)) <= 128 for group in groups)
    )
    ours = [[int(array[index]) for index in batch] for batch in token_batches(array, 128)]
    assert cost(ours) == cheapest


def _cut(items: list[int], cuts: int) -> list[list[int]]:
    groups = [[items[0]]]
    for place, item in enumerate(items[1:]):
        if cuts >> place & 1:
            groups.append([item])
        else:
            groups[-1].append(item)
    return groups


@given(st.integers(0, 6_000))
def test_windows_cover_a_text_from_its_beginning_to_its_end(count: int) -> None:
    """Every token once up to 2,032 of them; beyond, eight full windows spread evenly."""
    ids = list(range(count))
    windows = _windows(ids)
    assert all(len(window) <= MAX_TOKENS - 2 for window in windows)
    if count <= MAX_WINDOWS * (MAX_TOKENS - 2):
        assert [token for window in windows for token in window] == ids
        lengths = [len(window) for window in windows]
        assert max(lengths) - min(lengths) <= 1
    else:
        assert len(windows) == MAX_WINDOWS
        assert (windows[0][0], windows[-1][-1]) == (0, count - 1)


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """With the file's name and a cure."""
    folder = tmp_path
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read.*install"):
        WindowEncoder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        WindowEncoder(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_model_that_gives_no_vectors_is_an_error(value: float) -> None:
    """Not a number, infinite, or zero: never a score."""
    windows = WindowEncoder(Path(locate_model().location))
    with pytest.raises(EncoderError):
        windows.encode(["hello"], lambda each: np.full((len(each), 4), value, np.float32), 4)
    with pytest.raises(EncoderError, match="gave"):
        windows.encode(["hello"], lambda each: np.ones((len(each), 3), np.float32), 4)
