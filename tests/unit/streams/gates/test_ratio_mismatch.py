"""The sequential sample-ratio test: its exact null, its error and its power, counted in users."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from schemas.rollout import BUCKETS, NO_BUCKET
from streams.gates.ratio_mismatch import RatioMismatch, log_e_mismatch
from streams.state import _dec, _encoder

ALPHA = 0.001
USERS = 50
"""New users between two looks."""


def runs_that_alarm(
    seed: int, runs: int, *, share: float, kept: float, users: int = 8000, alpha: float = ALPHA
) -> tuple[int, float]:
    """How many of so many seeded runs alarm, and after how many buckets in the median.

    Each user has a bucket by chance, and comes once; of the candidate's users a part is kept.
    """
    rng = np.random.default_rng(seed)
    candidate = round(share * BUCKETS)
    delays = []
    for _ in range(runs):
        evidence = RatioMismatch(candidate_buckets=candidate)
        buckets = rng.integers(0, BUCKETS, users)
        lost = (buckets < candidate) & (rng.random(users) >= kept)
        for first in range(0, users, USERS):
            look = slice(first, first + USERS)
            evidence.update(buckets[look][~lost[look]])
            if evidence.log_e >= -math.log(alpha):
                delays.append(evidence.candidate + evidence.control)
                break
    return len(delays), float(np.median(delays)) if delays else math.inf


@given(
    buckets=st.lists(st.integers(0, BUCKETS - 1) | st.just(NO_BUCKET), max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=5),
    candidate=st.integers(1, BUCKETS - 1),
)
def test_any_split_and_order_of_the_rows_is_the_same(buckets, cuts, candidate):
    """Batches, their union in another order, and a round trip in between: the same evidence."""
    rows = np.array(buckets, dtype="<u2")
    whole = RatioMismatch(candidate_buckets=candidate)
    whole.update(rows[::-1])
    parts = RatioMismatch(candidate_buckets=candidate)
    for part in np.split(rows, sorted(min(c, len(rows)) for c in cuts)):
        parts.update(part)
        data = _encoder.encode(parts)
        parts = msgspec.msgpack.decode(data, type=RatioMismatch, dec_hook=_dec)
    real = {b for b in buckets if b != NO_BUCKET}
    assert parts.candidate == whole.candidate == sum(b < candidate for b in real)
    assert parts.control == whole.control == sum(b >= candidate for b in real)
    assert parts.seen.tobytes() == whole.seen.tobytes()
    assert np.flatnonzero(np.unpackbits(whole.seen, bitorder="little")).tolist() == sorted(real)
    assert parts.log_e == whole.log_e


def test_its_mean_under_the_null_is_at_most_one_exactly():
    """Over every order in which three of seven and four of seven buckets can turn up."""
    of = (3, 4)
    for draws in range(1, 8):
        total = 0.0
        for arms in itertools.product((0, 1), repeat=draws):
            seen, chance = [0, 0], 1.0
            for arm in arms:
                chance *= (of[arm] - seen[arm]) / (7 - sum(seen))
                seen[arm] += 1
            if chance > 0:
                total += chance * math.exp(log_e_mismatch((seen[0], seen[1]), of, 10.0))
        assert total <= 1.0 + 1e-12
        if draws <= 3:
            # While no arm can be used up, the alternative bets on nothing impossible.
            assert total == pytest.approx(1.0)


def test_it_is_the_product_of_the_predictions():
    """Draw by draw: what the prior and the past predict, against what is left in the urn."""
    rng, of, shares = np.random.default_rng(3), (2500, 7500), (0.25, 0.75)
    seen, log_e = [0, 0], 0.0
    for arm in (rng.random(500) < 0.7).astype(int).tolist():
        predicted = (100 * shares[arm] + seen[arm]) / (100 + sum(seen))
        log_e += math.log(predicted) - math.log((of[arm] - seen[arm]) / (BUCKETS - sum(seen)))
        seen[arm] += 1
    assert log_e_mismatch((seen[0], seen[1]), of, 100.0) == pytest.approx(log_e, abs=1e-7)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_type_one_error_at_every_look(share):
    """At the split that was asked for, 400 runs of 160 looks alarm in no more than alpha of them.

    The allowed count is the 1 - 1e-6 quantile of Binomial(400, 0.05).
    """
    alarms, _ = runs_that_alarm(19, 400, share=share, kept=1.0, alpha=0.05)
    assert alarms <= int(binom.ppf(1 - 1e-6, 400, 0.05))


@pytest.mark.parametrize(("share", "buckets"), [(0.25, 2500), (0.5, 2000)])
def test_a_fifth_of_the_candidates_users_lost_is_found(share, buckets):
    """Nearly every run finds it, in the median after so many buckets of users (M49)."""
    alarms, delay = runs_that_alarm(23, 60, share=share, kept=0.8)
    assert alarms >= 57
    assert delay <= buckets


def test_one_chatty_user_is_one_user():
    """A user with a million prompts counts once."""
    evidence = RatioMismatch(candidate_buckets=2500)
    evidence.update(np.arange(0, BUCKETS, 100))
    before = evidence.log_e
    for _ in range(100):
        evidence.update(np.full(10_000, 7))
    assert evidence.candidate + evidence.control == 101
    assert abs(evidence.log_e - before) < 0.1


def test_when_every_bucket_was_seen_nothing_is_left_to_learn():
    """The end of the urn: no infinity, and no alarm."""
    evidence = RatioMismatch(candidate_buckets=2500)
    for _ in range(2):
        evidence.update(np.arange(BUCKETS))
        assert (evidence.candidate, evidence.control) == (2500, 7500)
        assert evidence.log_e < 0.0
    assert evidence.seen.nbytes == 1250


def test_refuses_what_cannot_be():
    """A split of nobody, a prior without weight, and more buckets than there are."""
    for buckets in (0, BUCKETS):
        with pytest.raises(ValueError, match="split nobody"):
            RatioMismatch(candidate_buckets=buckets)
    with pytest.raises(ValueError, match="concentration"):
        RatioMismatch(candidate_buckets=1, concentration=0.0)
    with pytest.raises(ValueError, match="at most"):
        log_e_mismatch((3, 0), (2, 5), 10.0)
