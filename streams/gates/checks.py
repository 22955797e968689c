"""What every evidence refuses, and the few array operations that all of them share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "Floats",
    "checked_alpha",
    "checked_counts",
    "checked_values",
    "log_add",
    "log_mean",
    "log_mean_exp",
]

Floats = npt.NDArray[np.float64]


def checked_values(
    values: npt.ArrayLike, *, low: float = -math.inf, high: float = math.inf
) -> Floats:
    """The values as a float64 array of shape (rows,).

    Args:
        values: measured numbers, one a row.
        low: smallest value allowed.
        high: largest value allowed.

    Raises:
        ValueError: another shape, a NaN, an infinity, or a value outside [low, high]. Nothing has
            been counted then.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values have shape {array.shape}; give one number a row, shape (rows,)")
    if array.size:
        least, most = float(array.min()), float(array.max())
        # A NaN makes min and max NaN, and each comparison with NaN is false.
        if not (least >= low and most <= high and most - least < math.inf):
            raise ValueError(f"values {least} to {most} are not finite numbers in [{low}, {high}]")
    return array


def checked_counts(rows: int, hits: int) -> None:
    """Refuse counts that cannot be.

    Raises:
        ValueError: not ``0 <= hits <= rows``, or no whole numbers.
    """
    if not (rows == int(rows) and hits == int(hits) and 0 <= hits <= rows):
        raise ValueError(f"{hits} of {rows} rows is not a count: whole numbers, 0 <= hits <= rows")


def checked_alpha(alpha: float) -> float:
    """An error probability.

    Raises:
        ValueError: it does not lie in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha {alpha} does not lie in (0, 1)")
    return alpha


def log_add(left: float, right: float) -> float:
    """The log of ``exp(left) + exp(right)``, both finite."""
    if left < right:
        left, right = right, left
    return left + math.log1p(math.exp(right - left))


def log_mean(logs: Sequence[float]) -> float:
    """`log_mean_exp` of a few finite numbers, without the cost of an array."""
    most = max(logs)
    return most + math.log(math.fsum(math.exp(x - most) for x in logs) / len(logs))


def log_mean_exp(logs: npt.ArrayLike) -> Floats:
    """The log of the mean of ``exp(logs)`` along the last axis: a mixture of equal weights."""
    array = np.asarray(logs, dtype=np.float64)
    mixed: Floats = np.logaddexp.reduce(array, axis=-1) - math.log(array.shape[-1])
    return mixed
