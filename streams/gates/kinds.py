"""The kinds of evidence: of a rate, of a bounded mean, and of a comparison of means.

Each joins two e-processes, half of the capital each: one that has counted since the stage began
(the fastest way to find what was wrong from the start), and a change detector (nothing that was
right before can hide what is wrong now). Their mean is an e-process again, so P(breach certified,
ever) <= alpha needs no further correction; the price is log 2.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from streams.gates.bernoulli import Bernoulli
from streams.gates.bounded_mean import BoundedMean
from streams.gates.change import ChangeDetector
from streams.gates.checks import Floats, checked_values, log_add, log_mean
from streams.gates.contrast import Difference, Moments

__all__ = [
    "BLOCK_ROWS",
    "DRIFTS",
    "ContrastEvidence",
    "MeanEvidence",
    "RateEvidence",
    "WatchedDifference",
]

DRIFTS = (0.08, 0.15, 0.3, 0.6, 1.2)
"""Changes of a difference that are bet on, in standard deviations of an effective row."""

_SQUARES = [(d, d * d) for d in DRIFTS]

BLOCK_ROWS = 25
"""Rows an arm that make a block of the change detector of a difference. Fewer would waste
information where the arms of a batch are unequal, and more would react later."""


class RateEvidence(msgspec.Struct, kw_only=True, tag="rate"):
    """Of a rate, or of a quantile by the share of rows beyond it. Control rows are ignored."""

    too_high: bool
    """Whether the objective is ``<=``."""
    counts: Bernoulli
    change: ChangeDetector

    def update(self, control: npt.ArrayLike, candidate: npt.ArrayLike) -> None:  # noqa: ARG002
        """Count a batch of zeros and ones."""
        x = checked_values(candidate, low=0.0, high=1.0)
        hits = int(np.count_nonzero(x))
        if float(x.sum()) != hits:
            raise ValueError("a rate is of rows that are 0 or 1")
        self.update_counts(x.size, hits)

    def update_counts(self, rows: int, hits: int) -> None:
        """The same from counts.

        Raises:
            ValueError: not ``0 <= hits <= rows``.
        """
        self.counts.update(rows, hits)
        if rows:
            self.change.update_rate(self.counts.p0, rows, hits, above=self.too_high)

    @property
    def samples(self) -> int:
        """Rows of the candidate arm."""
        return self.counts.rows

    @property
    def control_samples(self) -> int:
        """None is compared."""
        return 0

    @property
    def value(self) -> float | None:
        """The observed rate."""
        return self.counts.mean

    @property
    def limit(self) -> float:
        """The rate that it is tested against."""
        return self.counts.p0

    @property
    def log_e_breach(self) -> float:
        """Log e-value against "the objective holds"."""
        start = self.counts.log_e_above if self.too_high else self.counts.log_e_below
        return _half_and_half(start, self.change.log_e)

    def clears(self, log_threshold: float) -> bool:
        """Whether `log_e_breach` is below a positive number at a glance; False when unsure."""
        counts = self.counts
        above, expected = float(counts.hits), counts.rows * counts.p0
        good = above <= expected if self.too_high else above >= expected
        return good and max(self.change.log_capital) < log_threshold

    @property
    def log_e_good(self) -> float:
        """Log e-value against "the objective is broken"."""
        return self.counts.log_e_below if self.too_high else self.counts.log_e_above

    def lower(self, alpha: float) -> float:
        """Lower confidence bound of the rate."""
        return self.counts.lower(alpha)

    def upper(self, alpha: float) -> float:
        """Upper confidence bound of the rate."""
        return self.counts.upper(alpha)


class MeanEvidence(msgspec.Struct, kw_only=True, tag="mean"):
    """Of the mean of values in [0, 1]. Control rows are ignored."""

    too_high: bool
    """Whether the objective is ``<=``."""
    bounded: BoundedMean
    change: ChangeDetector

    def update(self, control: npt.ArrayLike, candidate: npt.ArrayLike) -> None:  # noqa: ARG002
        """Count a batch of values in [0, 1]."""
        x = checked_values(candidate, low=0.0, high=1.0)
        if not x.size:
            return
        self.update_checked(x)

    def update_checked(self, x: Floats) -> None:
        """The same of values that are known to lie in [0, 1], at least one."""
        before = self.bounded.log_above if self.too_high else self.bounded.log_below
        self.bounded.update_checked(x)
        after = self.bounded.log_above if self.too_high else self.bounded.log_below
        self.change.grow([new - old for new, old in zip(after, before, strict=True)], x.size)

    @property
    def samples(self) -> int:
        """Rows of the candidate arm."""
        return self.bounded.rows

    @property
    def control_samples(self) -> int:
        """None is compared."""
        return 0

    @property
    def value(self) -> float | None:
        """The observed mean."""
        return self.bounded.mean

    @property
    def limit(self) -> float:
        """The mean that it is tested against."""
        return self.bounded.m0

    @property
    def log_e_breach(self) -> float:
        """Log e-value against "the objective holds"."""
        start = self.bounded.log_e_above if self.too_high else self.bounded.log_e_below
        return _half_and_half(start, self.change.log_e)

    def clears(self, log_threshold: float) -> bool:
        """Whether `log_e_breach` is below a positive number at a glance; False when unsure."""
        start = self.bounded.log_above if self.too_high else self.bounded.log_below
        return max(start) < log_threshold and max(self.change.log_capital) < log_threshold

    @property
    def log_e_good(self) -> float:
        """Log e-value against "the objective is broken"."""
        return self.bounded.log_e_below if self.too_high else self.bounded.log_e_above

    def lower(self, alpha: float) -> float:
        """Lower confidence bound of the mean."""
        return self.bounded.lower(alpha)

    def upper(self, alpha: float) -> float:
        """Upper confidence bound of the mean."""
        return self.bounded.upper(alpha)


class WatchedDifference(msgspec.Struct, kw_only=True):
    """A difference since the stage began, and a detector of its later changes.

    The detector works on blocks of at least `BLOCK_ROWS` rows an arm. The log likelihood ratio of a
    drift of d standard deviations is ``d sqrt(t) z - d**2 t / 2`` for a block of t effective rows,
    z standard errors above 0, by the same Gaussian approximation, with the stage's variances.
    """

    too_high: bool
    difference: Difference
    change: ChangeDetector
    control: Moments = msgspec.field(default_factory=Moments)
    """The block that is being filled."""
    candidate: Moments = msgspec.field(default_factory=Moments)

    def update(self, control: Moments, candidate: Moments) -> None:
        """Count a batch, by its moments in each arm."""
        whole = self.difference
        whole.control.merge(control)
        whole.candidate.merge(candidate)
        if not whole.standard_error:
            return
        self.control.merge(control)
        self.candidate.merge(candidate)
        n, m = self.candidate.rows, self.control.rows
        if n < BLOCK_ROWS or (m < BLOCK_ROWS and not whole.paired):
            return
        variance = whole.candidate.variance / n
        if not whole.paired:
            variance += whole.factor**2 * whole.control.variance / m
        gap = self.candidate.mean - whole.factor * self.control.mean - whole.offset
        t = float(n) if whole.paired else n * m / (n + m)
        z = (gap if self.too_high else -gap) / math.sqrt(variance)
        score, half = math.sqrt(t) * z, t / 2.0
        self.change.grow([d * score - square * half for d, square in _SQUARES], n)
        self.control, self.candidate = Moments(), Moments()

    @property
    def log_e_breach(self) -> float:
        """Log e-value against "not beyond the limit"."""
        if not self.difference.standard_error:
            return 0.0
        whole = self.difference
        start = whole.log_e_above if self.too_high else whole.log_e_below
        return _half_and_half(start, self.change.log_e)

    def clears(self, log_threshold: float) -> bool:
        """Whether `log_e_breach` is below a positive number at a glance; False when unsure."""
        gap = self.difference.mean
        good = gap <= 0.0 if self.too_high else gap >= 0.0
        return good and max(self.change.log_capital) < log_threshold

    @property
    def log_e_good(self) -> float:
        """Log e-value against "beyond the limit"."""
        return self.difference.log_e_below if self.too_high else self.difference.log_e_above


class ContrastEvidence(msgspec.Struct, kw_only=True, tag="contrast"):
    """Of a mean against the control arm's, against 0 (paired), or against a number.

    With a floor, two differences must both be beyond their limits: ``(1 + m) control`` and
    ``control +- floor``. A breach takes both (the smaller e-value: an intersection-union test, no
    share of alpha is lost); one of them is enough for the good side (the mean of the e-values).
    """

    too_high: bool
    parts: list[WatchedDifference]
    """One, or two with a floor."""

    def update(self, control: npt.ArrayLike, candidate: npt.ArrayLike) -> None:
        """Count a batch."""
        difference = self.parts[0].difference
        left = Moments() if difference.paired else difference.moments(control)
        right = difference.moments(candidate)
        self.update_moments(left, right)

    def update_moments(self, control: Moments, candidate: Moments) -> None:
        """The same from the moments of each arm's values, capped; none of control if paired."""
        for part in self.parts:
            part.update(control, candidate)

    @property
    def samples(self) -> int:
        """Rows of the candidate arm."""
        return self.parts[0].difference.candidate.rows

    @property
    def control_samples(self) -> int:
        """Rows of the control arm."""
        return self.parts[0].difference.control.rows

    @property
    def control_mean(self) -> float:
        """The control arm's mean, capped as everything is; 0 without rows."""
        return self.parts[0].difference.control.mean

    @property
    def value(self) -> float | None:
        """The candidate's mean."""
        return self.parts[0].difference.candidate.mean if self.samples else None

    @property
    def limit(self) -> float:
        """What it is held against, from the control arm's observed mean."""
        limits = [
            part.difference.factor * part.difference.control.mean + part.difference.offset
            for part in self.parts
        ]
        return max(limits) if self.too_high else min(limits)

    @property
    def log_e_breach(self) -> float:
        """Log e-value against "the objective holds"."""
        return min(part.log_e_breach for part in self.parts)

    def clears(self, log_threshold: float) -> bool:
        """Whether `log_e_breach` is below a positive number at a glance; False when unsure."""
        return any(part.clears(log_threshold) for part in self.parts)

    @property
    def log_e_good(self) -> float:
        """Log e-value against "the objective is broken"."""
        return log_mean([part.log_e_good for part in self.parts])

    def lower(self, alpha: float) -> float:
        """The limit, and what the difference to it is at least."""
        # The breach side needs no correction for two parts, the good side does.
        if self.too_high:
            return self.limit + min(part.difference.lower(alpha) for part in self.parts)
        each = alpha / len(self.parts)
        return self.limit + max(part.difference.lower(each) for part in self.parts)

    def upper(self, alpha: float) -> float:
        """The limit, and what the difference to it is at most."""
        if not self.too_high:
            return self.limit + max(part.difference.upper(alpha) for part in self.parts)
        each = alpha / len(self.parts)
        return self.limit + min(part.difference.upper(each) for part in self.parts)


def _half_and_half(start: float, change: float) -> float:
    return log_add(start, change) - math.log(2.0)
