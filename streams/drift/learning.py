"""Learns what a feature is like from the first rows, where no reference says it."""

from __future__ import annotations

import math

import msgspec

__all__ = ["MIN_BLOCKS", "Learning", "tolerance_of"]

MIN_BLOCKS = 32
"""Blocks that a standard deviation is taken from at least: its error is then 12 %."""
TOLERANCE = 0.1
"""In standard deviations. Less, and prompts are never the same: what is different at night would
be drift. More, and 5 % of another topic is seen later or never."""
_ONE_SIDED_95 = 1.645


def tolerance_of(mean_error: float) -> float:
    """A lasting shift that is no drift, in standard deviations.

    Three standard errors of the reference's own mean: a stream that is exactly as the reference
    is off by one of them.

    Args:
        mean_error: the standard error of the reference's mean, in standard deviations.
    """
    return max(TOLERANCE, 3.0 * mean_error)


class Learning(msgspec.Struct, kw_only=True):
    """Mean and variance of the blocks so far (Welford)."""

    blocks: int = 0
    rows: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared deviations from the mean."""

    def take(self, mean: float, rows: int) -> None:
        """Add a block that stands for so many rows."""
        self.blocks += 1
        self.rows += rows
        away = mean - self.mean
        self.mean += away / self.blocks
        self.squares += away * (mean - self.mean)

    def is_done(self, learn_rows: int) -> bool:
        """Whether it has seen enough."""
        return self.rows >= learn_rows and self.blocks >= MIN_BLOCKS

    @property
    def block_sd(self) -> float:
        """An upper 95 % bound of the standard deviation of a block.

        Of blocks, so that rows that resemble their neighbours do not pass for independent ones; a
        bound, since a deviation that is taken too small makes false alarms. The 5 % quantile of
        chi-squared is that of Wilson and Hilferty, The Distribution of Chi-Square, 1931.
        """
        freedom = self.blocks - 1
        part = 2.0 / (9.0 * freedom)
        quantile = freedom * (1.0 - part - _ONE_SIDED_95 * math.sqrt(part)) ** 3
        return math.sqrt(self.squares / quantile)
