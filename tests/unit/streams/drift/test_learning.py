"""What stands in for a reference, and how an episode ends."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import chi2

from schemas.drift import DriftDetector, DriftDirection
from streams.drift.episode import Episode
from streams.drift.learning import MIN_BLOCKS, TOLERANCE, Learning, tolerance_of


def test_mean_and_deviation_are_those_of_the_blocks() -> None:
    """Welford's numbers are the two-pass ones, also far from 0; the deviation is a 95 % bound."""
    blocks = (1e6 + np.random.default_rng(1).normal(0.0, 0.1, 100)).tolist()
    learning = Learning()
    for block in blocks:
        learning.take(block, 32)
    assert learning.mean == pytest.approx(statistics.fmean(blocks), rel=1e-12)
    bound = statistics.stdev(blocks) * math.sqrt(99 / chi2.ppf(0.05, 99))
    assert learning.block_sd == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize("blocks", [MIN_BLOCKS, 64])
def test_the_bound_holds_19_times_in_20(blocks: int) -> None:
    """A deviation that is taken too small would make false alarms."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        learning = Learning()
        for block in rng.normal(0.0, 1.0, blocks).tolist():
            learning.take(block, 32)
        held += learning.block_sd >= 1.0
    assert 930 <= held <= 970


@pytest.mark.parametrize(
    ("blocks", "rows", "done"),
    [(MIN_BLOCKS, 32, True), (MIN_BLOCKS - 1, 1000, False), (MIN_BLOCKS, 31, False)],
)
def test_it_is_done_with_enough_rows_in_enough_blocks(blocks: int, rows: int, done: bool) -> None:
    """Few large batches have many rows and say little about a deviation."""
    learning = Learning()
    for _ in range(blocks):
        learning.take(0.0, rows)
    assert learning.is_done(MIN_BLOCKS * 32) is done


def test_a_small_reference_tolerates_more() -> None:
    """Three standard errors of its mean, and never less than a tenth of a deviation."""
    assert tolerance_of(1 / math.sqrt(100)) == pytest.approx(0.3)
    assert tolerance_of(1 / math.sqrt(1e6)) == TOLERANCE == 0.1


def episode() -> Episode:
    """One that has just begun."""
    return Episode(
        detector=DriftDetector.ADWIN, direction=DriftDirection.UP, first_offset=0
    )  # fmt: skip


def test_an_episode_ends_with_a_whole_quiet_window() -> None:
    """Not before the window is full, and then by its mean alone."""
    one = episode()
    for place in range(9):
        one.take(0.9 if place == 0 else 0.0, 32)
        assert not one.is_over(0.1, 320)
    one.take(0.0, 32)
    assert one.mean == pytest.approx(0.09)
    assert one.is_over(0.1, 320)


def test_a_window_that_was_not_quiet_is_followed_by_another() -> None:
    """What was in the old one does not count any more."""
    one = episode()
    for _ in range(10):
        one.take(2.0, 32)
    assert not one.is_over(0.1, 320)
    assert (one.rows, one.blocks, one.mean) == (0, 0, 0.0)
    for _ in range(10):
        one.take(-1.0, 32)
    assert one.is_over(0.1, 320)


def test_the_other_direction_is_quiet() -> None:
    """Relevance that had fallen and is now better than ever has not drifted any more."""
    one = episode()
    one.take(-3.0, 320)
    assert one.is_over(0.1, 320)
