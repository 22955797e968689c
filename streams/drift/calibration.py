"""Makes a reference: what features are like, and thresholds by trying them on the reference itself.

Each trial draws the reference's rows anew twice, with replacement: once to be a reference, once to
be what prompts come from. So thresholds allow for a reference that is a sample, and for a stream
that is another one (the bootstrap: Efron, 1979). The highest statistic of each stretch of a stream
gives the line: that of a stretch stays below a threshold with probability exp(-rows / L), L being
the rows between two false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from schemas.drift import DriftFeature, FeatureReference, ThresholdLine
from streams.drift.blocks import BLOCK_ROWS
from streams.drift.learning import tolerance_of
from streams.drift.rff_mmd import FORGET_ROWS, MIN_ROWS
from streams.drift.scalar import CLIP, SIGNS, SMALLEST_SD

__all__ = [
    "MIN_REFERENCE_ROWS",
    "calibrate_feature",
    "calibrate_fourier",
    "line_through",
    "page_hinkley_peaks",
]

Floats = npt.NDArray[np.float64]

MIN_REFERENCE_ROWS = 200
"""Fewer prompts say too little: the tolerance would be 0.3 standard deviations and more."""
_STRETCH_BLOCKS = 160
"""5,120 rows. Longer stretches reach further with fewer points."""
_TRIALS = 150
_STRETCHES = 6
"""Of each trial. The points of the line reach from one false alarm in 7,000 rows to one in
500,000; it is drawn out to where each of 15 detectors has one in 3 million."""
_FOURIER_TRIALS = 40
_FOURIER_BLOCK = 16
"""Rows between two looks: as many as in the smallest batches of a busy worker. Larger batches are
looked at less often."""
_QUANTILES = (5, 25, 50, 75, 95)


def calibrate_feature(
    feature: DriftFeature, values: Floats, rng: np.random.Generator
) -> FeatureReference:
    """What a feature is like.

    Args:
        feature: a number of each row.
        values: of the reference's rows, finite; shape (rows,).
        rng: seeded by the caller.

    Raises:
        ValueError: too few rows.
    """
    rows = len(values)
    if rows < MIN_REFERENCE_ROWS:
        raise ValueError(f"{rows} rows, and a reference needs {MIN_REFERENCE_ROWS}")
    # Off by its own error, and held against a stream that is off by as much.
    tolerance = tolerance_of(math.sqrt(2.0 / rows))
    peaks: list[float] = []
    for _ in range(_TRIALS):
        drawn, others = values[rng.integers(0, rows, (2, rows))]
        sd = max(float(drawn.std()), SMALLEST_SD[feature])
        stream = others[rng.integers(0, rows, (_STRETCH_BLOCKS * _STRETCHES, BLOCK_ROWS))]
        z = (stream.mean(axis=1) - drawn.mean()) * (math.sqrt(BLOCK_ROWS) / sd)
        peaks += page_hinkley_peaks(
            np.clip(z, -CLIP, CLIP) * (SIGNS[feature] or 1),
            tolerance * math.sqrt(BLOCK_ROWS),
            _STRETCH_BLOCKS,
            both=not SIGNS[feature],
        )
    return FeatureReference(
        feature=feature,
        mean=float(values.mean()),
        sd=max(float(values.std()), SMALLEST_SD[feature]),
        quantiles=[float(q) for q in np.percentile(values, _QUANTILES)],
        tolerance=tolerance,
        page_hinkley=line_through(peaks, _STRETCH_BLOCKS * BLOCK_ROWS),
    )


def page_hinkley_peaks(z: Floats, tolerance: float, stretch: int, *, both: bool) -> list[float]:
    """The highest Page-Hinkley statistic in each stretch of a stream.

    Args:
        z: standardised numbers, upwards being worse; shape (stretches * stretch,).
        tolerance: of the detector.
        stretch: numbers of one.
        both: whether shifts down count too.

    Equal to :class:`streams.drift.page_hinkley.PageHinkley` but for rounding; a test holds them
    together.
    """
    peaks = np.full(len(z) // stretch, -np.inf)
    for side in (1.0, -1.0) if both else (1.0,):
        sums = np.cumsum(side * z - tolerance)
        rise = sums - np.minimum.accumulate(sums)
        np.maximum(peaks, rise.reshape(-1, stretch).max(axis=1), out=peaks)
    return [float(peak) for peak in peaks]


def calibrate_fourier(features: npt.NDArray[np.float32], rng: np.random.Generator) -> tuple[
    npt.NDArray[np.float32], float, ThresholdLine
]:  # fmt: skip
    """What embeddings are like.

    Args:
        features: Fourier features of the reference's rows, shape (rows, features).
        rng: seeded by the caller.

    Returns:
        Their mean, their spread, and the line of the threshold.

    Raises:
        ValueError: too few rows.
    """
    rows = len(features)
    if rows < MIN_REFERENCE_ROWS:
        raise ValueError(f"{rows} rows, and a reference needs {MIN_REFERENCE_ROWS}")
    spread = _spread(features)
    per_stretch = _STRETCH_BLOCKS * BLOCK_ROWS // _FOURIER_BLOCK
    peaks: list[float] = []
    for _ in range(_FOURIER_TRIALS):
        drawn, others = rng.integers(0, rows, (2, rows))
        mean = features[drawn].mean(axis=0, dtype=np.float64)
        picked = others[rng.integers(0, rows, (_FOURIER_BLOCK, per_stretch * _STRETCHES))]
        sums = features[picked[0]].astype(np.float64)
        for one in picked[1:]:
            sums += features[one]
        statistic = _statistics(sums, mean, spread, rows)
        peaks += statistic.reshape(_STRETCHES, -1).max(axis=1).tolist()
    line = line_through(peaks, per_stretch * _FOURIER_BLOCK)
    return features.mean(axis=0, dtype=np.float64).astype(np.float32), spread, line


def _spread(features: npt.NDArray[np.float32]) -> float:
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    return max(math.sqrt(2.0 * float(np.square(covariance, dtype=np.float64).sum())), 1e-6)


def _statistics(sums: Floats, mean: Floats, spread: float, reference_rows: int) -> Floats:
    """`RffMmd.statistic` after each record of a stream; -inf where it is None."""
    keep = math.exp(-_FOURIER_BLOCK / FORGET_ROWS)
    variance = 1.0 - float(mean @ mean)
    found = np.full(len(sums), -np.inf)
    running = np.zeros(sums.shape[1])
    weight = squares = 0.0
    for place, one in enumerate(sums):
        running *= keep
        running += one
        weight = weight * keep + _FOURIER_BLOCK
        squares = squares * keep * keep + _FOURIER_BLOCK
        rows = weight * weight / squares
        if rows < MIN_ROWS:
            continue
        away = running / weight - mean
        share = 1.0 / rows + 1.0 / reference_rows
        found[place] = (float(away @ away) - variance * share) / (spread * share)
    return found


def line_through(peaks: Iterable[float], rows: int) -> ThresholdLine:
    """The threshold by the rows between two false alarms, from the peaks of stretches.

    Args:
        peaks: the highest statistic of each stretch.
        rows: of a stretch.
    """
    ordered = np.sort(np.fromiter(peaks, np.float64))
    levels = (np.arange(len(ordered)) + 0.5) / len(ordered)
    lengths = -rows / np.log(levels)
    # The upper half is where thresholds are. Its very end is of the few trials in which the drawn
    # reference was off by more than the tolerance: against those no threshold helps, and one that
    # tried would see nothing.
    upper = (levels > 0.5) & (levels < 0.99)
    slope, intercept = np.polyfit(np.log(lengths[upper]), ordered[upper], 1)
    return ThresholdLine(intercept=float(intercept), slope=max(float(slope), 0.0))
