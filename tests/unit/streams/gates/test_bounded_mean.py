from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from streams.gates.bounded_mean import FRACTIONS, BoundedMean, bets, log_growth
from streams.gates.checks import log_mean_exp

VALUES = arrays(np.float64, st.integers(0, 60), elements=st.floats(0.0, 1.0))
LIMITS = st.sampled_from([1e-6, 0.3, 0.6, 0.7, 1 - 1e-6])


def counted(m0, *batches):
    evidence = BoundedMean(m0=m0)
    for batch in batches:
        evidence.update(batch)
    return evidence


@given(m0=LIMITS, values=VALUES, at=st.integers(0, 60))
def test_any_split_and_merge_is_the_same(m0, values, at):
    """Split, whole and merged agree to rounding; a round trip agrees to the last bit."""
    whole, split = counted(m0, values), counted(m0, values[:at], values[at:])
    merged = counted(m0, values[at:])
    merged.merge(counted(m0, values[:at]))
    for other in (split, merged):
        assert other.rows == whole.rows
        np.testing.assert_allclose(other.log_above, whole.log_above, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(other.log_below, whole.log_below, rtol=1e-9, atol=1e-9)
    packed = msgspec.msgpack.encode(whole)
    assert msgspec.msgpack.decode(packed, type=BoundedMean) == whole
    assert math.isfinite(whole.log_e_above)
    assert math.isfinite(whole.log_e_below)


@given(m0=st.sampled_from([0.3, 0.7]), values=VALUES, shift=st.floats(0.0, 0.5))
def test_higher_values_are_more_evidence_above(m0, values, shift):
    """Raising every value never lowers the evidence above, nor raises that below."""
    low, high = counted(m0, values), counted(m0, np.minimum(values + shift, 1.0))
    assert high.log_e_above >= low.log_e_above - 1e-9
    assert high.log_e_below <= low.log_e_below + 1e-9


@given(values=VALUES, alpha=st.sampled_from([0.05, 0.001]))
def test_bounds_enclose_the_mean_and_are_nested(values, alpha):
    """Lower <= mean <= upper within [0, 1]; a smaller alpha never narrows them."""
    evidence = counted(0.7, values)
    lower, upper = evidence.lower(alpha), evidence.upper(alpha)
    mean = 0.5 if evidence.mean is None else evidence.mean
    assert 0.0 <= lower <= mean + 1e-12
    assert mean - 1e-12 <= upper <= 1.0
    assert lower <= evidence.lower(0.4) + 1e-9
    assert upper >= evidence.upper(0.4) - 1e-9


def test_the_capital_is_the_product_of_its_bets():
    """Three rows, by hand."""
    evidence = counted(0.7, [0.2, 0.9, 0.6])
    stake = FRACTIONS[-1] / 0.3
    product = (1 + stake * 0.5) * (1 - stake * 0.2) * (1 + stake * 0.1)
    assert evidence.log_below[-1] == pytest.approx(math.log(product))


def test_its_mean_under_the_null_is_one_exactly():
    """Over all sequences of two rows of a three-point distribution with mean m0."""
    points, weights, m0 = np.array([0.0, 0.5, 1.0]), np.array([0.3, 0.2, 0.5]), 0.6
    for above in (True, False):
        total = 0.0
        for i in range(3):
            for j in range(3):
                growth = log_growth(points[[i, j]], m0, bets(m0, above=above))
                total += weights[i] * weights[j] * math.exp(float(log_mean_exp(growth)))
        assert total == pytest.approx(1.0)


def test_finds_a_small_shift_as_soon_as_ville_does():
    """Over 40 streams the median stop is at most 1.2 times that of ville's predictable plug-in."""
    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for _ in range(40):
        x = rng.beta(13.2, 6.8, 2000)
        growth = np.cumsum(np.log1p((0.7 - x)[:, None] * -bets(0.7, above=False)), axis=0)
        ours.append(int(np.argmax(log_mean_exp(growth) >= math.log(20))))
        test = ville.BettingTest(m0=0.7, alternative="less", alpha=0.05).fit(x)
        theirs.append(int(np.argmax(test.log_e_values_ >= math.log(20))))
    assert np.median(ours) <= 1.2 * np.median(theirs)


def test_bounds_are_nearly_as_tight_as_those_of_ville():
    """After 5000 rows: at most 1.35 times the width of the empirical Bernstein sequence."""
    x = np.random.default_rng(3).beta(13.2, 6.8, 5000)
    evidence = counted(0.7, x)
    theirs = ville.EmpiricalBernsteinCS(alpha=0.05, intersect=False).fit(x)
    width = evidence.upper(0.025) - evidence.lower(0.025)
    assert width <= 1.35 * (theirs.upper_[-1] - theirs.lower_[-1])
    assert evidence.lower(0.025) < 0.66 < evidence.upper(0.025)


@pytest.mark.parametrize("shape", [(0.2, 0.2), (20.0, 20.0)])
def test_type_one_error_at_every_look(shape):
    """At mean m0, 1000 runs of 40 looks reject or miss the mean in no more than alpha of the runs.

    The allowed count is the 1 - 1e-6 quantile of Binomial(1000, 0.05).
    """
    rng = np.random.default_rng(13)
    runs, rows, looks, alpha = 1000, 50, 40, 0.05
    capital = {side: np.zeros((runs, len(FRACTIONS))) for side in (True, False)}
    rejected = {side: np.zeros(runs, dtype=bool) for side in (True, False)}
    for _ in range(looks):
        x = rng.beta(*shape, (runs, rows))
        for side in (True, False):
            capital[side] += log_growth(x, 0.5, bets(0.5, above=side))
            rejected[side] |= log_mean_exp(capital[side]) >= -math.log(alpha)
    allowed = int(binom.ppf(1 - 1e-6, runs, alpha))
    assert rejected[True].sum() <= allowed
    assert rejected[False].sum() <= allowed


def test_bounds_cover_the_mean_at_every_look():
    """Of 200 runs of 15 looks, the bounds at alpha 0.05 miss the mean in at most 26.

    That is the 1 - 1e-5 quantile of Binomial(200, 0.05).
    """
    rng = np.random.default_rng(17)
    missed = 0
    for _ in range(200):
        evidence = BoundedMean(m0=0.6)
        wrong = False
        for _ in range(15):
            evidence.update(rng.beta(6.5, 3.5, 40))
            wrong |= evidence.lower(0.05) > 0.65
        missed += wrong
    assert missed <= int(binom.ppf(1 - 1e-5, 200, 0.05))


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [1.1], [-0.1], [[0.5]]])
def test_refuses_values_that_cannot_be(bad):
    """Such values raise, and nothing of their batch has been counted."""
    evidence = BoundedMean(m0=0.7)
    with pytest.raises(ValueError, match=r"values"):
        evidence.update(bad if isinstance(bad[0], list) else [0.5, *bad])
    assert evidence == BoundedMean(m0=0.7)


def test_refuses_limits_that_cannot_be():
    """A limit outside (0, 1), and a merge with another one."""
    for m0 in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="m0"):
            BoundedMean(m0=m0)
    with pytest.raises(ValueError, match="merged"):
        BoundedMean(m0=0.6).merge(BoundedMean(m0=0.7))
