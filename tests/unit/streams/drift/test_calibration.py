"""Thresholds by trial: they keep the run length, and are those of the detectors themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from schemas.drift import DriftFeature
from streams.drift.blocks import BLOCK_ROWS
from streams.drift.calibration import (
    MIN_REFERENCE_ROWS,
    calibrate_feature,
    calibrate_fourier,
    line_through,
    page_hinkley_peaks,
)
from streams.drift.page_hinkley import PageHinkley
from streams.drift.rff_mmd import new_rff_mmd


@pytest.mark.parametrize("both", [False, True])
def test_peaks_are_the_detectors_own(both: bool) -> None:
    """The highest statistic of each stretch, as Page-Hinkley has it number for number."""
    z = np.random.default_rng(1).normal(0.0, 1.0, 600)
    detector = PageHinkley(tolerance=0.4, threshold=1e9, mode="both" if both else "up")
    expected = []
    for stretch in z.reshape(6, 100).tolist():
        highest = -math.inf
        for number in stretch:
            detector.update(number)
            highest = max(highest, detector.statistic)
        expected.append(highest)
    assert page_hinkley_peaks(z, 0.4, 100, both=both) == pytest.approx(expected)


def test_a_line_gives_the_run_length_back() -> None:
    """Peaks of known exponential tails: the threshold for L rows is passed once in L rows."""
    rows, scale = 5_000, 2.0
    levels = (np.arange(2000) + 0.5) / 2000
    # P(peak <= h) = exp(-rows / L) with h = scale * ln L.
    peaks = scale * np.log(-rows / np.log(levels))
    line = line_through(peaks.tolist(), rows)
    assert line.slope == pytest.approx(scale, rel=1e-6)
    assert line.at(1e6) == pytest.approx(scale * math.log(1e6), rel=1e-6)


def test_a_threshold_keeps_the_run_length() -> None:
    """On another stream of the same prompts: one false alarm in 20,000 rows, to a factor of 2."""
    rng = np.random.default_rng(3)
    # Skewed, as relevance is.
    values = rng.beta(8.0, 2.0, 2_000)
    found = calibrate_feature(DriftFeature.RELEVANCE, values, rng)
    asked = 20_000
    alarms, blocks = 0, 40_000
    sd = values.std() / math.sqrt(BLOCK_ROWS)
    stream = values[rng.integers(0, len(values), (blocks, BLOCK_ROWS))].mean(axis=1)
    z = -(stream - values.mean()) / sd

    def new() -> PageHinkley:
        return PageHinkley(
            tolerance=found.tolerance * math.sqrt(BLOCK_ROWS),
            threshold=found.page_hinkley.at(asked),
            mode="up",
        )

    detector = new()
    for number in z.tolist():
        if detector.update(number):
            alarms += 1
            detector = new()
    expected = blocks * BLOCK_ROWS / asked
    # The reference's own error is allowed for, and this stream has none: rather fewer alarms.
    assert alarms <= 2 * expected
    assert found.page_hinkley.slope > 0


def test_the_reference_says_what_the_feature_is_like() -> None:
    """Mean, deviation and quantiles of the rows; the tolerance is three errors of two means."""
    values = np.linspace(0.0, 1.0, 401)
    found = calibrate_feature(DriftFeature.PROMPT_LENGTH, values, np.random.default_rng(1))
    assert found.mean == pytest.approx(0.5)
    assert found.sd == pytest.approx(values.std())
    assert found.quantiles == pytest.approx([0.05, 0.25, 0.5, 0.75, 0.95])
    assert found.tolerance == pytest.approx(3 * math.sqrt(2 / 401))


def test_a_feature_that_never_varies_is_taken_too() -> None:
    """Prompts that all score the same have the smallest deviation that anybody would mind."""
    found = calibrate_feature(
        DriftFeature.COHERENCE, np.full(300, 0.8), np.random.default_rng(1)
    )  # fmt: skip
    assert found.sd == 0.005
    assert math.isfinite(found.page_hinkley.at(3e6))


def test_the_same_seed_calibrates_alike() -> None:
    """To the last bit; with another seed nearly."""
    values = np.random.default_rng(5).normal(0.7, 0.1, 500)
    one, again, other = (
        calibrate_feature(DriftFeature.RELEVANCE, values, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert one == again
    assert other.page_hinkley.at(3e6) == pytest.approx(one.page_hinkley.at(3e6), rel=0.25)


def test_too_few_rows_are_refused() -> None:
    """With how many there are and how many are needed."""
    rng, few = np.random.default_rng(1), MIN_REFERENCE_ROWS - 1
    with pytest.raises(ValueError, match="199 rows, and a reference needs 200"):
        calibrate_feature(DriftFeature.RELEVANCE, np.zeros(few), rng)
    with pytest.raises(ValueError, match="199 rows, and a reference needs 200"):
        calibrate_fourier(np.zeros((few, 16), np.float32), rng)


def test_the_threshold_of_embeddings_separates() -> None:
    """Another stream of the same rows stays below it, one of others goes far above."""
    rng = np.random.default_rng(4)

    def features(rows: int, towards: float) -> np.ndarray:
        angles = rng.normal(towards, 1.0, (rows, 8))
        found = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(8)
        return found.astype(np.float32)

    reference = features(1000, 0.0)
    mean, spread, line = calibrate_fourier(reference, rng)
    np.testing.assert_allclose(mean, reference.mean(axis=0), atol=1e-6)
    exact = mean.astype(np.float64)

    def highest(towards: float) -> float:
        mmd, found = new_rff_mmd(16), -math.inf
        for _ in range(300):
            mmd.take(features(16, towards).sum(axis=0, dtype=np.float64), 16)
            statistic = mmd.statistic(
                exact, variance=1 - float(exact @ exact), spread=spread, reference_rows=1000
            )
            found = max(found, statistic if statistic is not None else -math.inf)
        return found

    assert highest(0.0) < line.at(200_000) < highest(0.4)
