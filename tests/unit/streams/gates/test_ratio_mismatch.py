from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from streams.gates.ratio_mismatch import RatioMismatch, log_e_mismatch

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=5)


@given(batches=COUNTS)
def test_any_split_and_merge_is_the_same(batches):
    """Batches, their sum and merged halves are equal, and a round trip changes nothing."""
    split, left, right = (RatioMismatch(shares=[0.25, 0.75]) for _ in range(3))
    for i, counts in enumerate(batches):
        split.update(list(counts))
        (left if i % 2 else right).update(list(counts))
    left.merge(right)
    whole = RatioMismatch(shares=[0.25, 0.75])
    whole.update([sum(c[0] for c in batches), sum(c[1] for c in batches)])
    assert split == left == whole
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=RatioMismatch) == whole
    assert whole.units == sum(map(sum, batches))


@given(units=st.integers(100, 10_000), off=st.integers(0, 40))
def test_a_split_further_off_is_more_evidence(units, off):
    """Moving one unit more away from the expected split never lowers the evidence."""
    half = units // 2
    near = log_e_mismatch([half + off, half - off], [0.5, 0.5], 100.0)
    far = log_e_mismatch([half + off + 1, half - off - 1], [0.5, 0.5], 100.0)
    assert far >= near - 1e-9


def test_two_arms_equal_ville():
    """With two arms it is the package ville's beta-binomial test with the same prior."""
    x = (np.random.default_rng(3).random(2000) < 0.3).astype(float)
    theirs = ville.BernoulliTest(p0=0.25, prior=(25.0, 75.0)).fit(x).log_e_values_
    hits = np.cumsum(x)
    counts = np.stack([hits, np.arange(1, 2001) - hits], axis=1)
    np.testing.assert_allclose(log_e_mismatch(counts, [0.25, 0.75], 100.0), theirs, atol=1e-8)


def test_its_mean_under_the_null_is_one_exactly():
    """Summed over all counts of six units in three arms."""
    shares, total = [0.2, 0.3, 0.5], 0.0
    for i in range(7):
        for j in range(7 - i):
            counts = [i, j, 6 - i - j]
            e = math.exp(float(log_e_mismatch(counts, shares, 10.0)))
            total += e * multinomial.pmf(counts, 6, shares)
    assert total == pytest.approx(1.0)


def test_type_one_error_at_every_look():
    """At the asked-for shares, 2000 runs of 100 looks reject in no more than alpha of the runs.

    The allowed count is the 1 - 1e-6 quantile of Binomial(2000, 0.05).
    """
    rng = np.random.default_rng(19)
    hits = np.cumsum(rng.binomial(50, 0.25, (100, 2000)), axis=0)
    n = 50 * np.arange(1, 101)[:, None]
    counts = np.stack([hits, n - hits], axis=-1)
    rejected = (log_e_mismatch(counts, [0.25, 0.75], 100.0) >= math.log(20)).any(axis=0)
    assert rejected.sum() <= int(binom.ppf(1 - 1e-6, 2000, 0.05))


@pytest.mark.parametrize("bad", [[1], [1, 2, 3], [-1, 2], [math.nan, 1], [math.inf, 1], [0.5, 1]])
def test_refuses_counts_that_cannot_be(bad):
    """Such counts raise, and nothing has been counted."""
    evidence = RatioMismatch(shares=[0.5, 0.5])
    with pytest.raises(ValueError, match="count"):
        evidence.update(bad)
    assert evidence.counts == [0, 0]


def test_refuses_settings_that_cannot_be():
    """Shares that do not add up to 1, a NaN, another concentration; a merge with other shares."""
    for shares in ([0.5], [0.5, 0.6], [0.0, 1.0], [math.nan, 0.5]):
        with pytest.raises(ValueError, match="shares"):
            RatioMismatch(shares=shares)
    with pytest.raises(ValueError, match="concentration"):
        RatioMismatch(shares=[0.5, 0.5], concentration=0.0)
    with pytest.raises(ValueError, match="merged"):
        RatioMismatch(shares=[0.5, 0.5]).merge(RatioMismatch(shares=[0.4, 0.6]))
