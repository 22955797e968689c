"""Late regressions: evidence that begins anew at each batch, so that no past can hide them."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from streams.gates.checks import Floats, checked_counts, log_mean

__all__ = ["EMPTY", "ChangeDetector", "rate_bets", "rate_growth", "start_mass", "step"]

EMPTY = -745.0
"""Log of the capital before the first start: exp of it is the smallest number above 0.

Finite, so that every serialiser takes it; adding it to any start's mass changes nothing.
"""

_ODDS = (1.25, 1.6, 2.2, 3.5, 7.0, 20.0)
"""Regressions of a rate that are bet on, as factors of the odds: from +25 % to twenty times."""


def start_mass(rows_before: int, rows: int, horizon_rows: float, *, endless: bool) -> float:
    """What is staked on a change at the start of a batch of some rows.

    Args:
        rows_before: rows seen before the batch.
        rows: rows of the batch.
        horizon_rows: see :class:`ChangeDetector`.
        endless: see :class:`ChangeDetector`.
    """
    if endless:
        return rows / horizon_rows
    # H / (n + H) - H / (n' + H): what all batches stake together never exceeds 1.
    after = rows_before + rows
    return rows * horizon_rows / ((rows_before + horizon_rows) * (after + horizon_rows))


def step(log_capital: Floats, log_growth: Floats, mass: float) -> Floats:
    """One batch: stake the mass on each bet, then let all capital grow; shapes (..., bets)."""
    stepped: Floats = np.logaddexp(log_capital, math.log(mass)) + log_growth
    return stepped


@lru_cache(maxsize=256)
def rate_bets(p0: float, *, above: bool) -> Floats:
    """Alternatives to a probability p0 on one side; logs of ratios, shape (2, bets).

    Row 0 is the log likelihood ratio of a hit, row 1 that of a miss.
    """
    odds = p0 / (1.0 - p0) * np.array(_ODDS) ** (1.0 if above else -1.0)
    alternative = odds / (1.0 + odds)
    ratios = np.stack([np.log(alternative / p0), np.log1p(-alternative) - math.log1p(-p0)])
    ratios.setflags(write=False)
    return ratios


@lru_cache(maxsize=256)
def _ratios(p0: float, *, above: bool) -> list[tuple[float, float]]:
    hit, miss = rate_bets(p0, above=above).tolist()
    return list(zip(hit, miss, strict=True))


def rate_growth(rows: npt.ArrayLike, hits: npt.ArrayLike, ratios: Floats) -> Floats:
    """Log growth of each bet on a rate over a batch; shape (..., bets)."""
    n = np.asarray(rows, dtype=np.float64)[..., None]
    s = np.asarray(hits, dtype=np.float64)[..., None]
    grown: Floats = s * ratios[0] + (n - s) * ratios[1]
    return grown


class ChangeDetector(msgspec.Struct, kw_only=True):
    """Evidence that a metric has been on the bad side since *some* batch on.

    At the start of each batch a stake is put on every bet, and all capital grows by what the batch
    says: ``R <- (R + mass) * growth``. This is the Shiryaev-Roberts e-detector (Shin, Ramdas,
    Rinaldo 2022, arXiv:2203.03532, their e-SR recursion), mixed over bets. Capital
    never falls below the latest stake, so after any healthy past a fresh regression is found after
    about ``(log(1/alpha) - log(stake)) / growth a row`` rows.

    Guarantee, with an alarm at ``log_e >= log(1 / alpha)``. Under the null hypothesis each start's
    capital is an e-process, hence at any stopping time T the mean of the sum is at most the sum of
    the stakes made before T (optional stopping), and by Markov's inequality:

    - ``endless=False`` (a rollout's stage): a batch of r rows after n stakes
      ``r H / ((n + H)(n + r + H))``; all stakes together stay below 1, half of them within the
      first H rows. P(an alarm ever) <= alpha, over *any* number of rows: it is covered by the
      gate's share of the rollout's alpha without a horizon that could be outlived.
    - ``endless=True`` (the watch after promotion): a batch of r rows stakes r / H.
      The average run length to a false alarm is at least ``H / alpha`` rows, and P(a false alarm
      within T rows) <= alpha T / H.

    Batches are the unit of starting: finer batches stake sooner, so a split of a batch changes the
    value (never the guarantee). Bets must not depend on rows of the batch that they are applied
    to. There is no merge: the order is the point.

    >>> rng = np.random.default_rng(5)
    >>> ratios = rate_bets(0.01, above=True)
    >>> detector = ChangeDetector(log_capital=[EMPTY] * 6, horizon_rows=100_000)
    >>> for batch in range(2000):
    ...     hits = int((rng.random(100) < (0.005 if batch < 1000 else 0.02)).sum())
    ...     detector.update(rate_growth(100, hits, ratios), rows=100)
    ...     if detector.log_e >= np.log(1 / 0.05):
    ...         break
    >>> batch
    1022
    """

    log_capital: list[float]
    """One a bet."""
    horizon_rows: float
    endless: bool = False
    rows: int = 0

    def __post_init__(self) -> None:
        """Refuse a detector that cannot be."""
        if not (self.log_capital and 1.0 <= self.horizon_rows < math.inf):
            raise ValueError(
                f"a change detector needs a bet and a horizon of at least one row, not "
                f"{len(self.log_capital)} bets and {self.horizon_rows} rows"
            )

    def update(self, log_growth: Floats, *, rows: int) -> None:
        """Count a batch.

        Args:
            log_growth: log of what each bet makes of its stake over the batch; shape (bets,).
            rows: rows of the batch; without rows nothing happens.

        Raises:
            ValueError: growth of another shape, or that is NaN or positive infinite.
        """
        checked_counts(rows, 0)
        if log_growth.shape != (len(self.log_capital),) or not float(log_growth.max()) < math.inf:
            raise ValueError(f"growth {log_growth} is not a number for each of the bets")
        if rows:
            self.grow(log_growth.tolist(), rows)

    def update_rate(self, p0: float, rows: int, hits: int, *, above: bool) -> None:
        """`update` with `rate_growth` on `rate_bets`, the same to the bit and without arrays.

        Args:
            p0: the limit in (0, 1).
            rows: rows of the batch, at least one.
            hits: of them.
            above: whether a rate above the limit is looked for.
        """
        misses = rows - hits
        self.grow([hits * hit + misses * miss for hit, miss in _ratios(p0, above=above)], rows)

    def grow(self, log_growth: list[float], rows: int) -> None:
        """`update` of finite growth, one number a bet, by at least one row."""
        mass = start_mass(self.rows, rows, self.horizon_rows, endless=self.endless)
        # `step` on a few numbers. Ruin must not become an infinity in the state.
        log_mass = math.log(mass)
        exp, log1p = math.exp, math.log1p
        grown = []
        # `log_add` written out: this runs for each bet of each gate at each batch.
        for capital, growth in zip(self.log_capital, log_growth, strict=True):
            if capital < log_mass:
                joined = log_mass + log1p(exp(capital - log_mass)) + growth
            else:
                joined = capital + log1p(exp(log_mass - capital)) + growth
            grown.append(max(EMPTY, joined))
        self.log_capital = grown
        self.rows += rows

    @property
    def log_e(self) -> float:
        """Log of the capital over all starts and bets."""
        return log_mean(self.log_capital)
