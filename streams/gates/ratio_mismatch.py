"""Whether the arms get the share of users that they should: a sequential sample-ratio test."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.rollout import BUCKETS

__all__ = ["RatioMismatch", "log_e_mismatch"]


def log_e_mismatch(seen: tuple[int, int], of: tuple[int, int], concentration: float) -> float:
    r"""Log e-value against "buckets turn up in an order that their arm has nothing to do with".

    Args:
        seen: buckets seen of each arm; at most `of`.
        of: buckets of each arm, at least one each.
        concentration: of the alternatives around the split that was asked for, in buckets: about
            1/sqrt(concentration) off.

    Under the null hypothesis a bucket that is seen for the first time is a draw without
    replacement, so it is of arm i with probability (of_i - seen_i) / (all - all seen). The
    alternative predicts it by Laplace's rule under the prior Beta(concentration * shares), as the
    sequential multinomial test of Lindon and Malek does (2022, NeurIPS, arXiv:2011.03567). The
    product of both kinds of predictions has a closed form, which does not depend on the order:

    .. math:: \log\frac{B(\alpha + S)}{B(\alpha)}
              - \log\frac{(N - S)!}{N!}\prod_i\frac{N_i!}{(N_i - S_i)!}
    """
    if not all(0 <= s <= n and n > 0 for s, n in zip(seen, of, strict=True)):
        raise ValueError(
            f"{seen} buckets seen of {of}: each arm has some, and is seen once at most"
        )
    lgamma, everything, total = math.lgamma, sum(of), sum(seen)
    log_alternative = lgamma(concentration) - lgamma(concentration + total)
    log_null = lgamma(everything - total + 1) - lgamma(everything + 1)
    for s, n in zip(seen, of, strict=True):
        prior = concentration * n / everything
        log_alternative += lgamma(prior + s) - lgamma(prior)
        log_null += lgamma(n + 1) - lgamma(n - s + 1)
    return log_alternative - log_null


class RatioMismatch(msgspec.Struct, kw_only=True):
    """Evidence that users of one arm are missing, or are in the wrong one.

    What is counted are *buckets*, so in effect users: prompts of one user are all in one arm, and
    a few busy users would look like a mismatch if prompts were counted. A salted hash spreads users
    evenly over the 10,000 buckets, whatever they do. So whose bucket turns up next has nothing to
    do with its arm, unless an arm loses users.

    The product of likelihood ratios is an e-process: P(it ever reaches 1/alpha) <= alpha, however
    often one looks. It can certify a mismatch, never that there is none; and where nearly every
    bucket has been seen, nothing is left to learn.

    >>> rng = np.random.default_rng(5)
    >>> evidence = RatioMismatch(candidate_buckets=2500)
    >>> while evidence.log_e < np.log(1 / 0.001):
    ...     users = rng.integers(0, 10_000, 100)
    ...     evidence.update(users[(users >= 2500) | (rng.random(100) < 0.8)])
    >>> evidence.candidate, evidence.control
    (657, 2308)
    """

    candidate_buckets: int
    """The lowest so many of the buckets are the candidate's; at least 1, and not all."""
    concentration: float = 100.0
    """See `log_e_mismatch`: alternatives within about a tenth, a typical bug's size."""
    candidate: int = 0
    """Buckets seen of the candidate arm."""
    control: int = 0
    seen: npt.NDArray[np.uint8] = msgspec.field(
        default_factory=lambda: np.zeros(BUCKETS // 8, np.uint8)
    )
    """A bit a bucket, the lowest first; shape (1250,)."""

    def __post_init__(self) -> None:
        """Refuse a split that is none."""
        if not 0 < self.candidate_buckets < BUCKETS:
            raise ValueError(f"{self.candidate_buckets} of {BUCKETS} buckets split nobody")
        if not 0.0 < self.concentration < math.inf:
            raise ValueError(f"concentration {self.concentration} is not a positive number")

    def update(self, buckets: npt.NDArray[np.integer]) -> None:
        """Count the buckets of rows, shape (rows,); those from 10,000 on are none."""
        if self.candidate + self.control == BUCKETS:
            return
        real = buckets[buckets < BUCKETS]
        new = real[(self.seen[real >> 3] >> (real & 7).astype(np.uint8)) & 1 == 0]
        if not new.size:
            return
        new = np.unique(new)
        np.bitwise_or.at(self.seen, new >> 3, np.uint8(1) << (new & 7).astype(np.uint8))
        candidate = int(np.count_nonzero(new < self.candidate_buckets))
        self.candidate += candidate
        self.control += new.size - candidate

    @property
    def log_e(self) -> float:
        """Log e-value against the split that was asked for."""
        of = (self.candidate_buckets, BUCKETS - self.candidate_buckets)
        return log_e_mismatch((self.candidate, self.control), of, self.concentration)
