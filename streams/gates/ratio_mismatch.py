"""Whether the arms get the share of users that they should: a sequential sample-ratio test."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from streams.gates.checks import Floats, checked_counts

__all__ = ["RatioMismatch", "log_e_mismatch"]


def log_e_mismatch(counts: npt.ArrayLike, shares: npt.ArrayLike, concentration: float) -> Floats:
    r"""Log e-value against "units fall into the arms with these probabilities".

    The Dirichlet-multinomial Bayes factor of Lindon and Malek (2022, NeurIPS, arXiv:2011.03567,
    their sequential multinomial test) with the prior Dirichlet(concentration * shares), whose mean
    is the null:

    .. math:: \log\frac{B(\alpha + S)}{B(\alpha)} - \sum_i S_i \log\theta_i

    Args:
        counts: units in each arm; shape (..., arms).
        shares: the probabilities of the null, all positive; shape (arms,).
        concentration: how near to the null the alternatives are, in units.
    """
    seen = np.asarray(counts, dtype=np.float64)
    theta = np.asarray(shares, dtype=np.float64)
    lgamma = np.vectorize(math.lgamma, otypes=[np.float64])
    prior = concentration * theta
    total = lgamma(np.sum(prior)) - lgamma(np.sum(prior) + seen.sum(axis=-1))
    log_e: Floats = total + (lgamma(prior + seen) - lgamma(prior) - seen * np.log(theta)).sum(-1)
    return log_e


class RatioMismatch(msgspec.Struct, kw_only=True):
    """Evidence that the split between the arms is not the one that was asked for.

    Count what is assigned: *users*. Prompts of one user all go to one arm, so counts of prompts
    vary more than multinomial ones, and a few busy users would look like a mismatch.

    A test of a point, not of a side: it can certify a mismatch, never that there is none.

    >>> rng = np.random.default_rng(5)
    >>> evidence = RatioMismatch(shares=[0.25, 0.75])
    >>> while evidence.log_e < np.log(1 / 0.001):
    ...     hits = int((rng.random(100) < 0.22).sum())
    ...     evidence.update([hits, 100 - hits])
    >>> evidence.counts
    [1501, 5099]
    """

    shares: list[float]
    """The probabilities that were asked for; positive, their sum 1."""
    concentration: float = 100.0
    """Of the prior: alternatives within about 1/sqrt(100) of the shares, a typical bug's size."""
    counts: list[int] = []

    def __post_init__(self) -> None:
        """Refuse shares that cannot be."""
        good = len(self.shares) >= 2 and all(0.0 < share < 1.0 for share in self.shares)
        if not good or abs(math.fsum(self.shares) - 1.0) > 1e-9:
            raise ValueError(f"shares {self.shares} are not two or more that add up to 1")
        if not 0.0 < self.concentration < math.inf:
            raise ValueError(f"concentration {self.concentration} is not a positive number")
        if not self.counts:
            self.counts = [0] * len(self.shares)

    def update(self, counts: list[int]) -> None:
        """Count new units in each arm.

        Raises:
            ValueError: another number of arms, or a count that is negative or no whole number.
        """
        if len(counts) != len(self.shares):
            raise ValueError(f"{len(counts)} counts for {len(self.shares)} arms")
        for count in counts:
            if not math.isfinite(count):
                raise ValueError(f"{count} is not a count")
            checked_counts(max(int(count), 0), count)
        self.counts = [old + int(new) for old, new in zip(self.counts, counts, strict=True)]

    def merge(self, other: RatioMismatch) -> None:
        """Count what another one has counted.

        Raises:
            ValueError: it tests other shares.
        """
        if other.shares != self.shares:
            raise ValueError(f"evidence on {other.shares} cannot be merged into {self.shares}")
        self.update(other.counts)

    @property
    def units(self) -> int:
        """Units in all arms."""
        return sum(self.counts)

    @property
    def log_e(self) -> float:
        """Log e-value against the shares that were asked for."""
        return float(log_e_mismatch(self.counts, self.shares, self.concentration))
