"""MMD by random Fourier features: whether embeddings are distributed as in the reference."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["FORGET_ROWS", "MIN_ROWS", "RffMmd", "new_rff_mmd"]

Floats = npt.NDArray[np.float64]

FORGET_ROWS = 256
"""Rows after which a row's weight has fallen to 1/e. The mean then has the error of one of twice as
many rows: fewer do not show a fifth of another topic, more show it later."""
MIN_ROWS = 64
"""Of the mean, before it is looked at: the error of fewer is far from normal."""


class RffMmd(msgspec.Struct, kw_only=True):
    """An exponentially forgetting mean of Fourier features, held against the reference's.

    The statistic is the squared distance of the two means, an estimate of the squared maximum mean
    discrepancy, less what it is without drift, in units of its standard deviation without drift.

    Sources: Gretton et al., A Kernel Two-Sample Test, 2012; Rahimi and Recht, Random Features for
    Large-Scale Kernel Machines, 2007; with forgetting as in Keriven et al., NEWMA, 2018.

    >>> import numpy as np
    >>> rng = np.random.default_rng(7)
    >>> turns = rng.standard_normal((2, 8))
    >>> def sums(mean):
    ...     angles = rng.normal(mean, 1.0, (32, 2)) @ turns
    ...     return np.sqrt(1 / 8) * np.concatenate([np.cos(angles), np.sin(angles)], 1).sum(0)
    >>> first = [sums(0.0) for _ in range(500)]
    >>> mean = sum(first) / (32 * 500)
    >>> mmd = new_rff_mmd(16)
    >>> found = []
    >>> for drawn in [0.0] * 100 + [0.5] * 20:
    ...     mmd.take(sums(drawn), 32)
    ...     variance = 1.0 - float(mean @ mean)
    ...     found.append(mmd.statistic(mean, variance=variance, spread=0.3, reference_rows=16_000))
    >>> max(x for x in found[:100] if x is not None) < 6.0
    True
    >>> next(i for i, x in enumerate(found) if x is not None and x > 6.0)
    103
    """

    sums: Floats
    """Weighted sums of the features."""
    weight: float = 0.0
    squares: float = 0.0
    """Of the weights."""

    def take(self, sums: Floats, rows: int) -> None:
        """Add the sums of so many rows; all of a record weigh the same."""
        keep = math.exp(-rows / FORGET_ROWS)
        self.sums *= keep
        self.sums += sums
        self.weight = self.weight * keep + rows
        self.squares = self.squares * keep * keep + rows

    @property
    def rows(self) -> float:
        """How many rows of equal weight have a mean with the same error."""
        return self.weight * self.weight / self.squares if self.squares else 0.0

    def statistic(
        self, mean: Floats, *, variance: float, spread: float, reference_rows: int
    ) -> float | None:
        """How far the mean is away; None with too few rows.

        Args:
            mean: of the reference.
            variance: tr S.
            spread: sqrt(2 tr S^2), S being the features' covariance over rows.
            reference_rows: that the reference's mean is of.
        """
        rows = self.rows
        if rows < MIN_ROWS:
            return None
        away = self.sums / self.weight - mean
        share = 1.0 / rows + 1.0 / reference_rows
        return (float(away @ away) - variance * share) / (spread * share)


def new_rff_mmd(features: int) -> RffMmd:
    """Without any rows yet."""
    return RffMmd(sums=np.zeros(features))
