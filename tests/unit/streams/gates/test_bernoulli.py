from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincc
from scipy.stats import binom

from streams.gates.bernoulli import Bernoulli, log_e_above, log_e_below

LIMITS = st.sampled_from([1e-9, 0.001, 0.01, 0.05, 0.5, 0.7, 0.999])
COUNTS = st.integers(0, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(p0=LIMITS, batches=st.lists(COUNTS, min_size=1, max_size=5))
def test_any_split_and_merge_is_the_same(p0, batches):
    """Batches, their sum and merged halves are equal, and a round trip changes nothing."""
    split, left, right = Bernoulli(p0=p0), Bernoulli(p0=p0), Bernoulli(p0=p0)
    for i, (n, k) in enumerate(batches):
        split.update(n, k)
        (left if i % 2 else right).update(n, k)
    left.merge(right)
    whole = Bernoulli(p0=p0)
    whole.update(sum(n for n, _ in batches), sum(k for _, k in batches))
    assert split == left == whole
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Bernoulli) == whole
    assert math.isfinite(whole.log_e_above)
    assert math.isfinite(whole.log_e_below)


@given(p0=LIMITS, counts=COUNTS)
def test_more_hits_are_more_evidence_that_the_rate_is_above(p0, counts):
    """One more hit among as many rows never lowers the evidence above, nor raises that below."""
    n, k = counts
    if k == n:
        return
    fewer, more = Bernoulli(p0=p0, rows=n, hits=k), Bernoulli(p0=p0, rows=n, hits=k + 1)
    slack = 1e-6 * (1.0 + abs(fewer.log_e_above) + abs(fewer.log_e_below))
    assert more.log_e_above >= fewer.log_e_above - slack
    assert more.log_e_below <= fewer.log_e_below + slack


@given(p0=LIMITS, counts=COUNTS)
def test_no_evidence_for_a_side_that_the_rate_is_not_on(p0, counts):
    """At an observed rate on one side, the e-value for the other side is at most 1."""
    n, k = counts
    evidence = Bernoulli(p0=p0, rows=n, hits=k)
    if k <= n * p0:
        assert evidence.log_e_above <= 1e-6 * (1 + n)
    if k >= n * p0:
        assert evidence.log_e_below <= 1e-6 * (1 + n)


@pytest.mark.parametrize("p0", [0.001, 0.05, 0.7])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_its_mean_under_the_null_is_one_exactly(p0, n):
    """Summed over all counts at p = p0, the e-value has mean 1; at a p on the good side, less."""
    hits = np.arange(n + 1)
    e = np.exp(log_e_above(n, hits, p0))
    assert (e * binom.pmf(hits, n, p0)).sum() == pytest.approx(1.0, abs=1e-9)
    assert (e * binom.pmf(hits, n, p0 / 2)).sum() < 1.0
    e = np.exp(log_e_below(n, hits, p0))
    assert (e * binom.pmf(hits, n, p0)).sum() == pytest.approx(1.0, abs=1e-9)


@given(counts=COUNTS, alpha=st.sampled_from([0.05, 0.001]))
def test_bounds_enclose_the_observed_rate_and_exclude_what_is_rejected(counts, alpha):
    """Lower <= rate <= upper; a point just inside is kept and one just outside rejected."""
    n, k = counts
    evidence = Bernoulli(p0=0.01, rows=n, hits=k)
    lower, upper = evidence.lower(alpha), evidence.upper(alpha)
    assert 0.0 <= lower <= (k / n if n else 1.0)
    assert (k / n if n else 0.0) <= upper <= 1.0
    if lower > 0.0:
        assert float(log_e_above(n, k, lower)) >= -math.log(alpha) - 1e-3
        assert float(log_e_above(n, k, lower + 1e-5 * (k / n))) < -math.log(alpha) + 1e-3
    assert evidence.lower(alpha) <= evidence.lower(0.4)


def test_equals_ville_but_for_the_truncation():
    """The package ville's mixture of the same prior, times the ratio of tail masses, is ours."""
    rng = np.random.default_rng(7)
    x = (rng.random(3000) < 0.013).astype(float)
    p0 = 0.01
    a, b = 0.5, 0.5 * 99
    theirs = ville.BernoulliTest(p0=p0, prior=(a, b)).fit(x)
    n, s = np.arange(1, 3001), np.cumsum(x)
    log_tails = np.log(betaincc(a + s, b + n - s, p0)) - np.log(betaincc(a, b, p0))
    np.testing.assert_allclose(
        log_e_above(n, s, p0), theirs.log_e_values_ + log_tails, rtol=1e-7, atol=1e-7
    )


def test_the_fast_path_is_the_formula():
    """The struct's scalar computation equals the array one, in the far tails as well."""
    for n, k, p0 in [(0, 0, 0.01), (10**6, 100, 0.01), (10**7, 70_000, 0.01), (500, 500, 0.7)]:
        one = Bernoulli(p0=p0, rows=n, hits=k)
        assert one.log_e_above == pytest.approx(float(log_e_above(n, k, p0)), rel=1e-9, abs=1e-9)
        assert one.log_e_below == pytest.approx(float(log_e_below(n, k, p0)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("p0", [0.001, 0.05, 0.7])
def test_type_one_error_at_every_look(p0):
    """At p = p0, 2000 runs of 100 looks reject on either side in no more than alpha of the runs.

    Ville: P <= alpha. With P = alpha the count is Binomial(2000, alpha); the allowed count is its
    quantile at 1 - 1e-6. A repeated z-test at the same alpha goes far beyond it on these data.
    """
    rng = np.random.default_rng(11)
    alpha, runs, rows = 0.05, 2000, 100
    hits = np.cumsum(rng.binomial(rows, p0, (100, runs)), axis=0)
    n = rows * np.arange(1, 101)[:, None]
    allowed = int(binom.ppf(1 - 1e-6, runs, alpha))
    for log_e in (log_e_above, log_e_below):
        rejected = (log_e(n, hits, p0) >= -math.log(alpha)).any(axis=0)
        assert rejected.sum() <= allowed
    z = (hits / n - p0) / np.sqrt(p0 * (1 - p0) / n)
    assert (z > 1.645).any(axis=0).sum() > allowed


def test_certifies_a_small_rate_with_fewer_than_half_the_rows_of_a_uniform_prior():
    """3,700 rows without an error certify "at most 0.1 %" at 95 %."""
    assert Bernoulli(p0=0.001, rows=3700, hits=0).log_e_below >= math.log(20)
    assert Bernoulli(p0=0.001, rows=3600, hits=0).log_e_below < math.log(20)


@pytest.mark.parametrize(
    ("rows", "hits"), [(1, 2), (1, -1), (-1, -1), (math.nan, 0), (1, math.nan), (1.5, 1)]
)
def test_refuses_counts_that_cannot_be(rows, hits):
    """Such counts raise, and nothing has been counted."""
    evidence = Bernoulli(p0=0.1)
    with pytest.raises(ValueError, match=r"count|NaN"):
        evidence.update(rows, hits)
    assert evidence.rows == 0


@pytest.mark.parametrize("p0", [0.0, 1.0, -0.1, math.nan, math.inf])
def test_refuses_limits_that_cannot_be(p0):
    """A limit outside (0, 1) raises, at construction and in decoding."""
    with pytest.raises(ValueError, match="p0"):
        Bernoulli(p0=p0)


def test_refuses_to_merge_evidence_on_another_limit():
    """Evidence on 1 % says nothing on 2 %."""
    with pytest.raises(ValueError, match="merged"):
        Bernoulli(p0=0.01).merge(Bernoulli(p0=0.02))
    with pytest.raises(ValueError, match="alpha"):
        Bernoulli(p0=0.01).lower(0.0)
