from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom
from ville._boundaries import best_rho, normal_mixture

from streams.gates.contrast import (
    Difference,
    Moments,
    half_width,
    log_e_normal,
    paired_difference,
    rho_for,
)

VALUES = arrays(np.float64, st.integers(0, 60), elements=st.floats(0.0, 1.0))


def contrast(**changes):
    settings = {"paired": False, "rho": 0.15, "min_rows": 2, "factor": 1.1} | changes
    return Difference(**settings)


@given(values=VALUES, at=st.integers(0, 60))
def test_moments_are_those_of_numpy_however_split(values, at):
    """Split in two and merged, count, mean and variance agree with numpy."""
    moments = Moments()
    moments.update(values[:at])
    moments.update(values[at:])
    assert moments.rows == len(values)
    if len(values) > 1:
        assert moments.mean == pytest.approx(values.mean(), abs=1e-12)
        assert moments.variance == pytest.approx(values.var(ddof=1), abs=1e-12)


@given(control=VALUES, candidate=VALUES, at=st.integers(0, 60))
def test_any_split_and_merge_is_the_same(control, candidate, at):
    """Split, whole and merged agree to rounding; a round trip agrees to the last bit."""
    whole, split, merged, other = contrast(), contrast(), contrast(), contrast()
    whole.update(control, candidate)
    split.update(control[:at], candidate[at:])
    split.update(control[at:], candidate[:at])
    merged.update(control[:at], candidate[at:])
    other.update(control[at:], candidate[:at])
    merged.merge(other)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Difference) == whole
    for each in (split, merged):
        assert each.clock == whole.clock
        assert each.mean == pytest.approx(whole.mean, abs=1e-12)
        assert each.standard_error == pytest.approx(whole.standard_error, abs=1e-9)


@given(z=st.floats(-30, 30), more=st.floats(0, 5), rows=st.floats(2, 1e7))
def test_a_higher_z_is_more_evidence(z, more, rows):
    """Evidence rises with z, and is finite."""
    lower, higher = log_e_normal([z, z + more], rows, 0.15)
    assert math.isfinite(lower)
    assert higher >= lower


@pytest.mark.parametrize("alpha", [0.05, 0.0015])
@pytest.mark.parametrize("rows", [200, 1000, 50_000])
def test_reaches_its_threshold_on_the_boundary_of_ville(alpha, rows):
    """On the package ville's half-normal boundary the e-value is 1/alpha; the closed form is wider.

    ville's mixture has precision 1 / rho**2; its boundary is of the sum, ours of the mean.
    """
    rho = rho_for(500, alpha)
    boundary = float(normal_mixture(rows, alpha, 1 / rho**2, one_sided=True))
    z = boundary / math.sqrt(rows)
    assert float(log_e_normal(z, rows, rho)) == pytest.approx(-math.log(alpha), abs=1e-6)
    assert boundary / rows <= half_width(rows, rho, alpha) <= 1.03 * boundary / rows


@pytest.mark.parametrize("alpha", [0.05, 0.0015])
def test_rho_is_nearly_the_best_at_its_rows(alpha):
    """At n* the width is within 1 % of that with the package ville's numerically best rho."""
    ours = float(normal_mixture(500, alpha, 1 / rho_for(500, alpha) ** 2, one_sided=True))
    best = float(normal_mixture(500, alpha, best_rho(500, alpha, one_sided=True), one_sided=True))
    assert best - 1e-9 <= ours <= 1.01 * best


def _false_alarms(share, alpha, *, cv, cap, min_rows, side, runs=2000, looks=60):
    """Runs in which means on the limit are ever rejected; lognormal rows, batches of 100."""
    rng = np.random.default_rng(31)
    sigma = math.sqrt(math.log1p(cv**2))
    # The factor at which the *capped* means are on the limit, from many quantiles.
    x = np.exp(sigma * rng.standard_normal(2_000_000))
    factor = np.minimum(1.1 * x, cap).mean() / np.minimum(x, cap).mean()
    n_batch = round(100 * share)
    sums = np.zeros((4, runs))
    fired = np.zeros(runs, dtype=bool)
    rho = rho_for(500, alpha)
    for look in range(1, looks + 1):
        a = np.minimum(np.exp(sigma * rng.standard_normal((runs, 100 - n_batch))), cap)
        b = np.minimum(1.1 * np.exp(sigma * rng.standard_normal((runs, n_batch))), cap)
        sums += [a.sum(1), (a * a).sum(1), b.sum(1), (b * b).sum(1)]
        m, n = (100 - n_batch) * look, n_batch * look
        if min(m, n) < min_rows:
            continue
        mean_a, mean_b = sums[0] / m, sums[2] / n
        var_a, var_b = sums[1] / m - mean_a**2, sums[3] / n - mean_b**2
        error = np.sqrt(var_b / n + factor**2 * var_a / m)
        z = side * (mean_b - factor * mean_a) / error
        fired |= log_e_normal(z, n * m / (n + m), rho) >= -math.log(alpha)
    return int(fired.sum())


@pytest.mark.parametrize(("share", "side"), [(0.25, 1), (0.25, -1), (0.5, 1), (0.5, -1)])
def test_type_one_error_at_every_look(share, side):
    """Lognormal latencies, CV 0.6, exactly 10 % slower: at most alpha = 0.05 of 2000 runs reject.

    The allowed count is the 1 - 1e-6 quantile of Binomial(2000, 0.05).
    """
    fired = _false_alarms(share, 0.05, cv=0.6, cap=math.inf, min_rows=200, side=side)
    assert fired <= int(binom.ppf(1 - 1e-6, 2000, 0.05))


def test_heavy_tails_need_the_cap():
    """CV 4, a tenth of the rows in the control arm: capped at 5 it keeps alpha, as it is it fails.

    1000 runs at alpha 0.05; the bound between the two is the 1 - 1e-3 quantile of Binomial(1000,
    0.05): the capped count must not exceed it, the raw one must.
    """
    allowed = int(binom.ppf(1 - 1e-3, 1000, 0.05))
    settings = {"cv": 4.0, "min_rows": 400, "side": 1, "runs": 1000, "looks": 80}
    assert _false_alarms(0.9, 0.05, cap=5.0, **settings) <= allowed
    assert _false_alarms(0.9, 0.05, cap=math.inf, **settings) > allowed


def test_says_nothing_before_it_can():
    """Below the least rows of either arm, or without any variance, there is no evidence."""
    evidence = contrast(min_rows=200)
    evidence.update(np.linspace(0, 1, 500), np.linspace(10, 11, 199))
    assert (evidence.log_e_above, evidence.log_e_below) == (0.0, 0.0)
    assert evidence.upper(0.05) == math.inf
    evidence.update([], [10.5])
    assert evidence.log_e_above > 100
    constant = contrast()
    constant.update(np.full(500, 0.5), np.full(500, 0.9))
    assert constant.log_e_above == 0.0


def test_paired_is_the_mean_of_the_differences():
    """Scores 5 % above the rules are certified to be 2 % above, and not to be 6 % above."""
    rng = np.random.default_rng(37)
    rules = rng.beta(9, 3, 2000)
    score = np.clip(1.05 * rules + rng.normal(0, 0.03, 2000), 0, 1)
    for margin, certified in ((0.02, True), (0.06, False)):
        evidence = contrast(paired=True, factor=1.0, min_rows=200)
        evidence.update([], paired_difference(score, rules, margin))
        assert (evidence.log_e_above >= math.log(20)) is certified
        assert evidence.lower(0.05) < float(np.mean(score - (1 + margin) * rules))


def test_a_cap_counts_larger_values_as_itself():
    """One latency of a minute changes nothing beyond the cap."""
    capped, minute = contrast(cap=2.0), contrast(cap=2.0)
    capped.update([0.1, 0.2], [0.1, 2.0])
    minute.update([0.1, 0.2], [0.1, 60.0])
    assert capped == minute


def test_refuses_what_cannot_be():
    """NaN and infinity, control rows of a paired difference, unequal columns, wrong settings."""
    evidence = contrast()
    for bad in ([math.nan], [math.inf], [-math.inf]):
        with pytest.raises(ValueError, match="finite"):
            evidence.update([0.5], bad)
        with pytest.raises(ValueError, match="finite"):
            evidence.update(bad, [0.5])
    assert evidence == contrast()
    with pytest.raises(ValueError, match="control rows"):
        contrast(paired=True).update([1.0], [1.0])
    with pytest.raises(ValueError, match="pair"):
        paired_difference([1.0, 2.0], [1.0], 0.0)
    with pytest.raises(ValueError, match="merged"):
        evidence.merge(contrast(factor=1.2))
    for changes in ({"rho": 0.0}, {"rho": math.nan}, {"min_rows": 1}, {"factor": math.inf}):
        with pytest.raises(ValueError, match=r"rho|min_rows"):
            contrast(**changes)
    for n_star, alpha in ((0, 0.05), (500, 0.5), (500, 0.0)):
        with pytest.raises(ValueError, match="n_star"):
            rho_for(n_star, alpha)
