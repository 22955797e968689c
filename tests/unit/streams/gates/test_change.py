from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from streams.gates.bounded_mean import FRACTIONS, bets, log_growth
from streams.gates.change import EMPTY, ChangeDetector, rate_bets, rate_growth, start_mass, step
from streams.gates.checks import log_mean_exp

RATIOS = rate_bets(0.01, above=True)


def detector(**changes):
    settings = {"log_capital": [EMPTY] * RATIOS.shape[1], "horizon_rows": 1000.0} | changes
    return ChangeDetector(**settings)


@given(sizes=st.lists(st.integers(1, 500), max_size=50))
def test_all_stakes_of_a_stage_never_exceed_one(sizes):
    """However the rows are batched, the stakes telescope to n / (n + H)."""
    before, staked = 0, 0.0
    for rows in sizes:
        staked += start_mass(before, rows, 1000.0, endless=False)
        before += rows
    assert staked == pytest.approx(before / (before + 1000.0))
    assert sum(start_mass(0, rows, 1000.0, endless=True) for rows in sizes) == pytest.approx(
        before / 1000.0
    )


@given(
    batches=st.lists(
        st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
        min_size=1,
        max_size=15,
    )
)
def test_it_is_the_sum_over_all_starts(batches):
    """The recursion equals stake times growth since, summed over starts; a round trip is exact."""
    watched = detector()
    for n, k in batches:
        watched.update(rate_growth(n, k, RATIOS), rows=n)
        packed = msgspec.msgpack.encode(watched)
        assert msgspec.msgpack.decode(packed, type=ChangeDetector) == watched
    before, parts = 0, []
    for i, (rows, _) in enumerate(batches):
        grown = sum(rate_growth(n, k, RATIOS) for n, k in batches[i:])
        parts.append(math.log(start_mass(before, rows, 1000.0, endless=False)) + grown)
        before += rows
    expected = float(log_mean_exp(np.logaddexp.reduce(parts, axis=0)))
    if expected > EMPTY / 2:
        assert watched.log_e == pytest.approx(expected, abs=1e-8)


@given(healthy=st.integers(0, 10_000), hits=st.integers(0, 99))
def test_more_hits_are_more_evidence(healthy, hits):
    """After any healthy past, one more hit in the last batch never lowers the evidence."""
    fewer, more = detector(), detector()
    for watched, last in ((fewer, hits), (more, hits + 1)):
        if healthy:
            watched.update(rate_growth(healthy, 0, RATIOS), rows=healthy)
        watched.update(rate_growth(100, last, RATIOS), rows=100)
    assert more.log_e >= fewer.log_e


def test_a_long_healthy_past_hides_nothing():
    """A regression after 1,000,000 clean rows takes at most 1.5 times the rows it takes at 10,000.

    Evidence that only counts from the start has not found it by then.
    """
    delays = []
    for healthy in (100, 10_000):
        watched = detector(horizon_rows=100_000.0)
        for _ in range(healthy):
            watched.update(rate_growth(100, 0, RATIOS), rows=100)
        rows = 0
        while watched.log_e < math.log(1 / 0.0015):
            watched.update(rate_growth(100, 3, RATIOS), rows=100)
            rows += 100
        delays.append(rows)
    assert delays[1] <= 1.5 * delays[0]
    from_start = rate_growth(1_000_000 + delays[1], 3 * delays[1] / 100, RATIOS)
    assert float(log_mean_exp(from_start)) < 0.0


@pytest.mark.parametrize("horizon", [100.0, 10_000.0])
def test_false_alarms_over_a_whole_stage(horizon):
    """At p = p0, 1000 stages of 200 batches alarm in no more than alpha = 0.1 of the stages.

    P(an alarm ever) <= alpha whatever the horizon; the allowed count is the 1 - 1e-6 quantile of
    Binomial(1000, 0.1).
    """
    rng = np.random.default_rng(23)
    capital = np.full((1000, RATIOS.shape[1]), EMPTY)
    alarmed = np.zeros(1000, dtype=bool)
    for i in range(200):
        growth = rate_growth(np.full(1000, 100), rng.binomial(100, 0.01, 1000), RATIOS)
        capital = step(capital, growth, start_mass(100 * i, 100, horizon, endless=False))
        alarmed |= log_mean_exp(capital) >= math.log(10)
    assert alarmed.sum() <= int(binom.ppf(1 - 1e-6, 1000, 0.1))


def test_average_run_length_of_the_endless_watch():
    """With H = 500 rows and alpha 0.1, means at m0 run for H / alpha = 5000 rows on average.

    600 runs of at most 20,000 rows; runs that are cut short count as 20,000, which can only lower
    the average. Its standard error is below 20,000 / 2 / sqrt(600) = 408: 4 of them are allowed.
    """
    rng = np.random.default_rng(29)
    runs, rows, limit = 600, 50, 20_000
    capital = np.full((runs, len(FRACTIONS)), EMPTY)
    lengths = np.full(runs, limit)
    running = np.ones(runs, dtype=bool)
    for i in range(limit // rows):
        growth = log_growth(rng.beta(13, 7, (runs, rows)), 0.65, bets(0.65, above=False))
        capital = step(capital, growth, start_mass(rows * i, rows, 500.0, endless=True))
        alarmed = running & (log_mean_exp(capital) >= math.log(10))
        lengths[alarmed] = rows * (i + 1)
        running &= ~alarmed
    assert lengths.mean() >= 5000 - 4 * 408


def test_refuses_what_cannot_be():
    """NaN or infinite growth, another number of bets, no bets, no horizon; nothing is counted."""
    watched = detector()
    for bad in (np.full(6, math.nan), np.full(6, math.inf), np.zeros(5)):
        with pytest.raises(ValueError, match="growth"):
            watched.update(bad, rows=10)
    with pytest.raises(ValueError, match="count"):
        watched.update(np.zeros(6), rows=-1)
    watched.update(np.zeros(6), rows=0)
    assert watched == detector()
    for changes in ({"log_capital": []}, {"horizon_rows": 0.0}, {"horizon_rows": math.nan}):
        with pytest.raises(ValueError, match="detector"):
            detector(**changes)


def test_ruin_leaves_a_finite_state():
    """A batch that no bet can explain ruins all capital, and the next stake starts again."""
    watched = detector()
    watched.update(np.full(6, -np.inf), rows=10)
    assert watched.log_capital == [EMPTY] * 6
    watched.update(np.zeros(6), rows=10)
    assert watched.log_e > EMPTY / 2
