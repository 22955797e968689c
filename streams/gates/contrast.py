"""Means that are compared: two arms at the same time, or two scores of the same prompt."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from streams.gates.checks import Floats, checked_alpha, checked_values

__all__ = ["Difference", "Moments", "half_width", "log_e_normal", "paired_difference", "rho_for"]


def rho_for(n_star: float, alpha: float) -> float:
    """The mixture's scale that makes the one-sided sequence tightest at n_star rows.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv:2103.06476, appendix on one-sided
    sequences: ``sqrt((-2 ln 2a + ln(-2 ln 2a + 1)) / n*)``. To be frozen before the first row.

    Raises:
        ValueError: n_star is not positive, or alpha not in (0, 0.5).
    """
    if not (0.0 < n_star < math.inf and 0.0 < alpha < 0.5):
        raise ValueError(f"n_star {n_star} must be positive, and alpha {alpha} within (0, 0.5)")
    twice = -2.0 * math.log(2.0 * alpha)
    return math.sqrt((twice + math.log(twice + 1.0)) / n_star)


def log_e_normal(z: npt.ArrayLike, rows: npt.ArrayLike, rho: float) -> Floats:
    r"""Log e-value against "the mean is at most 0", of a mean that lies z standard errors above it.

    The normal mixture over drifts on one side of 0 (Robbins 1970; Howard et al. 2021, one-sided
    normal mixture) of the Gaussian approximation of arXiv:2103.06476, with ``c = rows rho^2``:

    .. math:: E = \frac{2}{\sqrt{1+c}} \exp\Big(\frac{c}{1+c}\frac{z^2}{2}\Big)
              \Phi\Big(z\sqrt{\tfrac{c}{1+c}}\Big)

    That paper's closed boundary (`half_width`) is this one with Phi bounded from below, so this is
    never later.
    """
    score = np.asarray(z, dtype=np.float64)
    c = np.asarray(rows, dtype=np.float64) * rho**2
    shrunk = score * np.sqrt(c / (1.0 + c))
    log_e: Floats = math.log(2.0) - 0.5 * np.log1p(c) + 0.5 * shrunk**2 + log_ndtr(shrunk)
    return log_e


def _log_e(z: float, rows: float, rho: float) -> float:
    """`log_e_normal` of single numbers."""
    c = rows * rho**2
    shrunk = z * math.sqrt(c / (1.0 + c))
    return math.log(2.0) - 0.5 * math.log1p(c) + 0.5 * shrunk**2 + float(log_ndtr(shrunk))


def half_width(rows: float, rho: float, alpha: float) -> float:
    r"""Half-width of the one-sided sequence, in standard deviations of one row.

    arXiv:2103.06476: :math:`\sqrt{\frac{2(n\rho^2+1)}{(n\rho)^2}
    \ln\big(1+\frac{\sqrt{n\rho^2+1}}{2\alpha}\big)}`.
    """
    c = rows * rho**2 + 1.0
    width = 2.0 * c / (rows * rho) ** 2 * math.log1p(math.sqrt(c) / (2.0 * checked_alpha(alpha)))
    return math.sqrt(width)


def paired_difference(value: npt.ArrayLike, reference: npt.ArrayLike, margin: float) -> Floats:
    """``value - (1 + margin) reference`` row by row: its mean is 0 at a relative limit of margin.

    Raises:
        ValueError: columns of unequal length, or a number that is not finite.
    """
    left, right = checked_values(value), checked_values(reference)
    if left.shape != right.shape:
        raise ValueError(f"{left.size} values for {right.size} references: give a pair a row")
    return left - (1.0 + margin) * right


class Moments(msgspec.Struct, kw_only=True):
    """Count, mean and sum of squared deviations, in the form that keeps small variances exact."""

    rows: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared deviations from the mean."""

    def update(self, values: Floats) -> None:
        """Count a batch of finite values, shape (rows,)."""
        if values.size:
            mean = float(values.sum()) / values.size
            deviations = values - mean
            self.merge(Moments(rows=values.size, mean=mean, squares=float(deviations @ deviations)))

    def merge(self, other: Moments) -> None:
        """Count what another one has counted (Chan, Golub and LeVeque 1979)."""
        if not other.rows:
            return
        rows = self.rows + other.rows
        delta = other.mean - self.mean
        self.squares += other.squares + delta * delta * self.rows * other.rows / rows
        self.mean += delta * other.rows / rows
        self.rows = rows

    @property
    def variance(self) -> float:
        """Of one row; 0 below two rows, and where all that differs is rounding."""
        if self.squares <= self.rows * (1e-9 * self.mean) ** 2:
            return 0.0
        return self.squares / (self.rows - 1) if self.rows > 1 else 0.0


class Difference(msgspec.Struct, kw_only=True):
    """Evidence on ``candidate mean - factor * control mean - offset``, both sides at once.

    An asymptotic confidence sequence (arXiv:2103.06476): valid in the limit, like the central limit
    theorem, so it says nothing below ``min_rows`` rows an arm, and nothing when neither arm has
    any variance. Its simulated false alarms are part of the tests.

    With two arms of n and m rows the evidence's clock is ``n m / (n + m)``, which grows with the
    information on the difference whatever share of the users either arm has (Jennison and Turnbull
    2000, chapter 11: the z statistic is a Brownian motion in the information). Without a control
    arm (a paired difference, or a mean against a number) it is n.

    Heavy tails: one latency of a minute outweighs a thousand normal ones, and until such rows are
    common the variance is underestimated. Give ``cap``: larger values count as the cap, in both
    arms alike, so that the comparison is one of capped means: a slowdown of capped rows alone is
    not seen here, but by a quantile gate. Skewness costs most where one arm is small and alpha too:
    simulated with lognormal latencies and 5 % of the rows in the control arm, alpha 0.0014, a CV of
    2 fires in 0.0125 of the runs as it is, in 0.004 capped at seven times the mean, and in 0.001
    when it also speaks from 400 rows an arm on only, instead of 200. Latencies are judged so.

    >>> rng = np.random.default_rng(5)
    >>> slower = Difference(factor=1.1, paired=False, rho=rho_for(500, 0.05), min_rows=200)
    >>> while slower.log_e_above < np.log(1 / 0.05):
    ...     slower.update(rng.lognormal(-1.6, 0.5, 75), rng.lognormal(-1.6, 0.5, 25) * 1.2)
    >>> slower.control.rows, slower.candidate.rows
    (3525, 1175)
    """

    paired: bool
    """No control arm: the control mean is 0."""
    rho: float
    """Scale of the mixture, see `rho_for`; frozen."""
    min_rows: int
    """Rows an arm before it speaks; at least 2."""
    factor: float = 1.0
    offset: float = 0.0
    cap: float | None = None
    """Larger values count as this one."""
    control: Moments = msgspec.field(default_factory=Moments)
    candidate: Moments = msgspec.field(default_factory=Moments)

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        numbers = (self.factor, self.offset, 0.0 if self.cap is None else self.cap)
        if not (0.0 < self.rho < math.inf and all(map(math.isfinite, numbers))):
            raise ValueError(f"rho {self.rho} must be positive, and {numbers} finite")
        if self.min_rows < 2:
            raise ValueError(f"min_rows {self.min_rows}: a variance takes two rows")

    def update(self, control: npt.ArrayLike, candidate: npt.ArrayLike) -> None:
        """Count a batch, shapes (control rows,) and (candidate rows,).

        Raises:
            ValueError: a number that is not finite, or control rows for a paired difference.
        """
        left, right = self.moments(control), self.moments(candidate)
        if self.paired and left.rows:
            raise ValueError(f"{left.rows} control rows for a difference without a control arm")
        self.control.merge(left)
        self.candidate.merge(right)

    def moments(self, values: npt.ArrayLike) -> Moments:
        """Of a batch of one arm, capped; shape (rows,).

        Raises:
            ValueError: a number that is not finite.
        """
        return self.moments_checked(checked_values(values))

    def moments_checked(self, x: Floats) -> Moments:
        """The same of values that are known to be finite."""
        rows = x.size
        if not rows:
            return Moments()
        capped = x if self.cap is None else np.minimum(x, self.cap)
        mean = float(np.add.reduce(capped)) / rows
        deviations = capped - mean
        return Moments(rows=rows, mean=mean, squares=float(deviations @ deviations))

    def merge(self, other: Difference) -> None:
        """Count what another one has counted.

        Raises:
            ValueError: it measures something else.
        """
        if other.settings != self.settings:
            raise ValueError(f"evidence on {other.settings} cannot be merged into {self.settings}")
        self.control.merge(other.control)
        self.candidate.merge(other.candidate)

    @property
    def settings(self) -> tuple[bool, float, int, float, float, float | None]:
        """What must be equal for a merge."""
        return self.paired, self.rho, self.min_rows, self.factor, self.offset, self.cap

    @property
    def mean(self) -> float:
        """The observed difference."""
        return self.candidate.mean - self.factor * self.control.mean - self.offset

    @property
    def clock(self) -> float:
        """Effective rows."""
        n, m = self.candidate.rows, self.control.rows
        if self.paired:
            return float(n)
        return n * m / (n + m) if n and m else 0.0

    @property
    def standard_error(self) -> float:
        """Of the observed difference; 0 while it cannot be judged."""
        n, m = self.candidate.rows, self.control.rows
        if n < self.min_rows or (m < self.min_rows and not self.paired):
            return 0.0
        variance = self.candidate.variance / n
        if not self.paired:
            variance += self.factor**2 * self.control.variance / m
        return math.sqrt(variance)

    @property
    def log_e_above(self) -> float:
        """Log e-value against "the difference is at most 0"; 0 while it cannot be judged."""
        error = self.standard_error
        return _log_e(self.mean / error, self.clock, self.rho) if error else 0.0

    @property
    def log_e_below(self) -> float:
        """Log e-value against "the difference is at least 0"; 0 while it cannot be judged."""
        error = self.standard_error
        return _log_e(-self.mean / error, self.clock, self.rho) if error else 0.0

    def lower(self, alpha: float) -> float:
        """What the difference is at least; minus infinity while it cannot be judged.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        return self.mean - self._radius(alpha)

    def upper(self, alpha: float) -> float:
        """What the difference is at most; infinity while it cannot be judged.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        return self.mean + self._radius(alpha)

    def _radius(self, alpha: float) -> float:
        checked_alpha(alpha)
        error = self.standard_error
        if not error:
            return math.inf
        # half_width is in deviations of a row; a standard error is one of clock rows.
        return error * math.sqrt(self.clock) * half_width(self.clock, self.rho, alpha)
