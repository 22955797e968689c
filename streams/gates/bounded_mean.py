"""Means of values in [0, 1] (coherence, relevance, satisfaction): betting against the limit."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from streams.gates.checks import Floats, checked_alpha, checked_values, log_mean, log_mean_exp

__all__ = ["FRACTIONS", "BoundedMean", "bets", "log_growth"]

FRACTIONS: tuple[float, ...] = tuple(0.02 * (0.9 / 0.02) ** (j / 9) for j in range(10))
"""Bets as fractions of the largest that cannot lose everything: ten from 2 % to 90 %.

Neighbours differ by 1.53, so the best bet is at most 1.24 away from one, which costs 6 % of its
growth; ten of them cost log 10 = 2.3 once. More bets would cost more than they find.
"""

_GRID = 129
"""Points on which a confidence bound is searched, three times: to 128**-3 = 5e-7."""


@lru_cache(maxsize=256)
def bets(m0: float, *, above: bool) -> Floats:
    """The fixed bets on a mean above (below) m0, as an array of shape (10,).

    A bet b multiplies its stake by ``1 + b (x - m0)``: it must exceed -1/(1 - m0) and be less than
    1/m0 for this to stay positive over all x in [0, 1].
    """
    fractions = np.array(FRACTIONS)
    found: Floats = fractions / m0 if above else -fractions / (1.0 - m0)
    found.setflags(write=False)
    return found


@lru_cache(maxsize=256)
def _all_bets(m0: float) -> Floats:
    """Those above, then those below."""
    return np.concatenate([bets(m0, above=True), bets(m0, above=False)])


_FOLDS = 3
"""Up to 27 factors, each in [0.1, 1e6], are multiplied before a logarithm is taken: that is far
from the limits of a float, and takes a tenth of the time of as many logarithms."""


def log_growth(values: npt.ArrayLike, m0: float, stakes: Floats) -> Floats:
    """Log of what each bet has made of its stake; the last axis of values becomes one of bets."""
    excess = np.asarray(values, dtype=np.float64) - m0
    factors = 1.0 + excess[..., None, :] * stakes[:, None]
    for _ in range(_FOLDS):
        rows = factors.shape[-1]
        half = rows // 2
        if not half:
            break
        folded = factors[..., :half] * factors[..., half : 2 * half]
        if rows % 2:
            folded[..., 0] *= factors[..., -1]
        factors = folded
    grown: Floats = np.log(factors).sum(axis=-1)
    return grown


class BoundedMean(msgspec.Struct, kw_only=True):
    """Evidence on the mean of values in [0, 1], against one limit, both sides at once.

    The capital of a gambler who stakes a tenth on each of ten fixed bets (Waudby-Smith and Ramdas
    2024, JRSS-B 86, arXiv:2010.09686: their capital process ``K_t(m)`` with constant bets, mixed as
    in their "diversified Kelly betting"). ``prod (1 + b (x_i - m0))`` is a
    nonnegative supermartingale for b > 0 whenever the mean of each x_i given its past is at most
    m0 (b < 0: at least m0); no other property of x is assumed. The bets depend on nothing that was
    observed, so a batch is as valid as single rows, the order is irrelevant, and merging is exact.

    The bounds need all candidates m, not m0 alone. They come from three sums, by Fan, Grama and
    Liu's ``1 + y >= exp(y - y**2 (-log(1-c) - c) / c**2)`` for ``y >= -c`` (2015, their inequality
    (4.11), on which empirical Bernstein sequences rest), with bets up to 0.9, mixed
    half and half with the capital against m0 where that is valid. They are wider than the test is
    sharp, so a certified breach may show a bound that has not yet reached its limit.

    >>> rng = np.random.default_rng(5)
    >>> evidence = BoundedMean(m0=0.7)
    >>> while evidence.log_e_below < np.log(1 / 0.05):
    ...     evidence.update(rng.beta(13, 7, 10))
    >>> evidence.rows, round(evidence.mean, 3)
    (50, 0.646)
    """

    m0: float
    """The limit in (0, 1)."""
    rows: int = 0
    total: float = 0.0
    total_squares: float = 0.0
    log_above: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(FRACTIONS))
    """Log capital of each bet that the mean is above the limit."""
    log_below: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(FRACTIONS))

    def __post_init__(self) -> None:
        """Refuse a limit that cannot be."""
        if not 0.0 < self.m0 < 1.0:
            raise ValueError(f"m0 {self.m0} does not lie in (0, 1)")

    def update(self, values: npt.ArrayLike) -> None:
        """Count a batch of shape (rows,).

        Raises:
            ValueError: a value that is no number in [0, 1].
        """
        self.update_checked(checked_values(values, low=0.0, high=1.0))

    def update_checked(self, x: Floats) -> None:
        """Count a batch of shape (rows,) that is known to lie in [0, 1]."""
        self.rows += x.size
        self.total += float(np.add.reduce(x))
        self.total_squares += float(x @ x)
        grown = log_growth(x, self.m0, _all_bets(self.m0)).tolist()
        half = len(FRACTIONS)
        self.log_above = [a + g for a, g in zip(self.log_above, grown[:half], strict=True)]
        self.log_below = [a + g for a, g in zip(self.log_below, grown[half:], strict=True)]

    def merge(self, other: BoundedMean) -> None:
        """Count what another one has counted.

        Raises:
            ValueError: it tests another limit.
        """
        if other.m0 != self.m0:
            raise ValueError(f"evidence on {other.m0} cannot be merged into one on {self.m0}")
        self.rows += other.rows
        self.total += other.total
        self.total_squares += other.total_squares
        self.log_above = np.add(self.log_above, other.log_above).tolist()
        self.log_below = np.add(self.log_below, other.log_below).tolist()

    @property
    def mean(self) -> float | None:
        """The observed mean."""
        return self.total / self.rows if self.rows else None

    @property
    def log_e_above(self) -> float:
        """Log e-value against "the mean is at most m0"."""
        return log_mean(self.log_above)

    @property
    def log_e_below(self) -> float:
        """Log e-value against "the mean is at least m0"."""
        return log_mean(self.log_below)

    def lower(self, alpha: float) -> float:
        """What the mean is at least: wrong at any time with a chance of at most alpha.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        checked_alpha(alpha)
        return _lower(self.rows, self.total, self.total_squares, self.m0, self.log_e_above, alpha)

    def upper(self, alpha: float) -> float:
        """What the mean is at most: wrong at any time with a chance of at most alpha.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        checked_alpha(alpha)
        # On 1 - x, which has the mirrored sums.
        total = self.rows - self.total
        squares = self.rows - 2.0 * self.total + self.total_squares
        return 1.0 - _lower(self.rows, total, squares, 1.0 - self.m0, self.log_e_below, alpha)


def _lower(
    rows: int, total: float, squares: float, m0: float, log_e_m0: float, alpha: float
) -> float:
    if not rows:
        return 0.0
    rejected, kept = 0.0, min(max(total / rows, 0.0), 1.0)
    for _ in range(3):
        grid = np.linspace(rejected, kept, _GRID)
        inner = grid[1:-1]
        log_e = _log_e_of_sums(rows, total, squares, inner)
        # Capital against "at most m0" also speaks against "at most m" for each m <= m0.
        log_e = np.logaddexp(log_e, np.where(inner <= m0, log_e_m0, -np.inf)) - math.log(2.0)
        accepted = log_e < -math.log(alpha)
        first = int(np.argmax(accepted)) if accepted.any() else _GRID - 2
        rejected, kept = float(grid[first]), float(grid[first + 1])
    return rejected


def _log_e_of_sums(rows: int, total: float, squares: float, m: Floats) -> Floats:
    """Log e-value against "the mean is at most m" from sums; shape of m."""
    stakes = np.array(FRACTIONS)
    worst = stakes * np.maximum(m, 1e-12)[:, None]
    # -log(1-c) - c over c**2 goes to 1/2 for small c, where it would be all rounding.
    penalty = np.where(
        worst < 1e-4, 0.5 + worst / 3.0, (-np.log1p(-worst) - worst) / np.maximum(worst, 1e-4) ** 2
    )
    excess = (total - rows * m)[:, None]
    deviation = (squares - 2.0 * m * total + rows * m * m)[:, None]
    return log_mean_exp(stakes * excess - stakes**2 * penalty * deviation)
