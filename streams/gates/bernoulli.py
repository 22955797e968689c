"""Error rates, hit rates and quantiles: a one-sided test of a probability, looked at at any time.

A quantile gate is one of these: ``p95 <= 0.5 s`` says ``P(processing_seconds > 0.5) <= 0.05``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaln

from streams.gates.checks import Floats, checked_alpha, checked_counts

__all__ = ["Bernoulli", "log_e_above", "log_e_below"]

_TINY = 1e-250
"""A smaller tail probability is computed from its density; near 1e-308 scipy's would become 0."""

_MOST_ROWS = 500.0
"""What the prior weighs at most, in rows. Were it more, one error among a thousand rows would say
nothing against a limit of one in a billion: that prior excludes a rate of one in a thousand."""

_GRID, _ROUNDS = 9, 10
"""A bound is searched on 9 points, ten times: to 8**-10 = 1e-9 of its range, with few points in
all, since each of them takes microseconds and every gate's bounds are computed with every pane."""


def log_e_above(rows: npt.ArrayLike, hits: npt.ArrayLike, p0: npt.ArrayLike) -> Floats:
    r"""Log e-value against "the probability is at most p0"; broadcasts over its arguments.

    The likelihood ratio of a Beta(a, b) prior truncated to (p0, 1) against p0 (Robbins 1970;
    Howard, Ramdas, McAuliffe and Sekhon 2021, Annals of Statistics 49, arXiv:1810.08240, the
    one-sided beta-binomial mixture of section 3, there up to a change of variables):

    .. math:: E = \frac{B(a+s,\,b+n-s)}{B(a,b)\,p_0^s(1-p_0)^{n-s}}\cdot
              \frac{1-I_{p_0}(a+s,\,b+n-s)}{1-I_{p_0}(a,b)}

    Each alternative p1 > p0 gives a ratio whose mean under p <= p0 is at most 1, so the mixture is
    a nonnegative supermartingale for the whole composite hypothesis; without the truncation it
    would test ``p = p0`` only. By Ville's inequality it ever reaches 1/alpha with a probability of
    at most alpha, however often one looks.

    The prior's mean is p0 and its smaller parameter 1/2 (so Jeffreys' for p0 = 1/2): it puts its
    weight on alternatives of the size of p0, where a regression of a small rate is. A uniform
    prior has 3 nats less at 2 % against 1 %. For limits below 0.1 % it stays as concentrated as
    500 rows, which makes it nearly uniform in log p from the limit up to there.
    """
    n, s, p = (np.asarray(x, dtype=np.float64) for x in (rows, hits, p0))
    scale = np.minimum(0.5 / np.minimum(p, 1.0 - p), _MOST_ROWS)
    a, b = scale * p, scale * (1.0 - p)
    likelihood = s * np.log(p) + (n - s) * np.log1p(-p)
    marginal = betaln(a + s, b + n - s) - betaln(a, b)
    tails = _log_tail(a + s, b + n - s, p) - np.log(betaincc(a, b, p))
    log_e: Floats = np.asarray(marginal + tails - likelihood, dtype=np.float64)
    return log_e


def log_e_below(rows: npt.ArrayLike, hits: npt.ArrayLike, p0: npt.ArrayLike) -> Floats:
    """Log e-value against "the probability is at least p0": the mirror of `log_e_above`."""
    n, s, p = (np.asarray(x, dtype=np.float64) for x in (rows, hits, p0))
    return log_e_above(n, n - s, 1.0 - p)


def _log_tail(a: Floats, b: Floats, x: Floats) -> Floats:
    """Log of the probability that a Beta(a, b) variable exceeds x.

    Where it is below `_TINY`, by ``density / slope``: the log density is concave there (a and b
    are then large), so this bound from above is tight to a relative 1 / z**2 with z > 33.
    """
    tail = np.asarray(betaincc(a, b, x))
    if tail.min(initial=1.0) > _TINY:
        exact: Floats = np.log(tail)
        return exact
    slope = np.maximum((b - 1.0) / (1.0 - x) - (a - 1.0) / x, 1.0)
    far = (a - 1.0) * np.log(x) + (b - 1.0) * np.log1p(-x) - betaln(a, b) - np.log(slope)
    both: Floats = np.where(tail > _TINY, np.log(np.maximum(tail, _TINY)), far)
    return both


@lru_cache(maxsize=256)
def _of_limit(p0: float) -> tuple[float, float, float, float, float]:
    """What of `log_e_above` depends on the limit alone: a, b, the constant, log p0, log (1-p0)."""
    scale = min(0.5 / min(p0, 1.0 - p0), _MOST_ROWS)
    a, b = scale * p0, scale * (1.0 - p0)
    constant = -float(betaln(a, b)) - math.log(float(betaincc(a, b, p0)))
    return a, b, constant, math.log(p0), math.log1p(-p0)


def _log_e(rows: int, hits: int, p0: float) -> float:
    """`log_e_above` of single numbers, four times as fast: each gate needs it at each batch."""
    a, b, constant, log_p, log_q = _of_limit(p0)
    tail = float(betaincc(a + hits, b + rows - hits, p0))
    if tail <= _TINY:
        return float(log_e_above(rows, hits, p0))
    marginal = float(betaln(a + hits, b + rows - hits))
    return marginal + constant + math.log(tail) - hits * log_p - (rows - hits) * log_q


class Bernoulli(msgspec.Struct, kw_only=True):
    """Evidence on a probability from counts alone: any split or merge of the data is the same.

    >>> import numpy as np
    >>> rng = np.random.default_rng(5)
    >>> evidence = Bernoulli(p0=0.01)
    >>> while float(evidence.log_e_above) < np.log(1 / 0.05):
    ...     evidence.update(50, int((rng.random(50) < 0.02).sum()))
    >>> evidence.rows, evidence.hits
    (250, 9)
    >>> 0.01 < evidence.lower(0.05) < 9 / 250 < evidence.upper(0.05)
    True
    """

    p0: float
    """The limit in (0, 1)."""
    rows: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        """Refuse a limit or counts that cannot be."""
        if not 0.0 < self.p0 < 1.0:
            raise ValueError(f"p0 {self.p0} does not lie in (0, 1)")
        checked_counts(self.rows, self.hits)

    def update(self, rows: int, hits: int) -> None:
        """Count a batch.

        Raises:
            ValueError: not ``0 <= hits <= rows``.
        """
        checked_counts(rows, hits)
        self.rows += int(rows)
        self.hits += int(hits)

    def merge(self, other: Bernoulli) -> None:
        """Count what another one has counted.

        Raises:
            ValueError: it tests another limit.
        """
        if other.p0 != self.p0:
            raise ValueError(f"evidence on {other.p0} cannot be merged into one on {self.p0}")
        self.update(other.rows, other.hits)

    @property
    def mean(self) -> float | None:
        """The observed rate."""
        return self.hits / self.rows if self.rows else None

    @property
    def log_e_above(self) -> float:
        """Log e-value against "the probability is at most p0"."""
        return _log_e(self.rows, self.hits, self.p0)

    @property
    def log_e_below(self) -> float:
        """Log e-value against "the probability is at least p0"."""
        return _log_e(self.rows, self.rows - self.hits, 1.0 - self.p0)

    def lower(self, alpha: float) -> float:
        """What the probability is at least: wrong at any time with a chance of at most alpha.

        The set of all p that `log_e_above` has not rejected (Howard et al. 2021).

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        return _lower(self.rows, self.hits, checked_alpha(alpha))

    def upper(self, alpha: float) -> float:
        """What the probability is at most: wrong at any time with a chance of at most alpha.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        return 1.0 - _lower(self.rows, self.rows - self.hits, checked_alpha(alpha))


def _lower(rows: int, hits: int, alpha: float) -> float:
    if not hits:
        return 0.0
    rejected, kept = 0.0, hits / rows
    for _ in range(_ROUNDS):
        grid = np.linspace(rejected, kept, _GRID)
        inner = np.clip(grid[1:-1], 1e-300, 1.0 - 1e-16)
        # The first point that is not rejected: then every rejected p below has been left out, and
        # none above it.
        accepted = log_e_above(rows, hits, inner) < -math.log(alpha)
        first = int(np.argmax(accepted)) if accepted.any() else _GRID - 2
        rejected, kept = float(grid[first]), float(grid[first + 1])
    return rejected
