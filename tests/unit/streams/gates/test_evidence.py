from __future__ import annotations

import doctest
import importlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.policy import Gate, GateRole, Metric, Statistic, default_policy
from streams.gates.evidence import AnyEvidence, evidence_for, latency_cap

GATES = {gate.name: gate for gate in default_policy().gates if not gate.metric.is_health}
ALPHA = 0.0015


def rows(gate, n, badness, rng):
    """Control and candidate rows of a gate: 0 is well within its limit, 1 far beyond it."""
    if gate.metric.is_rate or gate.statistic.quantile is not None:
        limit = gate.parsed.limit if gate.statistic.quantile is None else 0.05
        rates = (limit / 50, max(3 * limit, 0.02)) if gate.parsed.upper else (0.9, limit / 2)
        return np.zeros(n), (rng.random(n) < rates[badness]).astype(float)
    if gate.against == "rules":
        return np.zeros(n), rng.normal((0.05, -0.05)[badness], 0.1, n)
    if gate.metric == "processing_seconds":
        return rng.lognormal(-1.5, 0.5, n), rng.lognormal((-1.5, -0.8)[badness], 0.5, n)
    return rng.beta(16, 4, n), rng.beta(*((16, 4), (10, 10))[badness], n)


def filled(gate, *parts, seed=1):
    rng = np.random.default_rng(seed)
    evidence = evidence_for(gate, alpha_breach=ALPHA, latency_cap_s=1.0)
    for batches, badness in parts:
        for _ in range(batches):
            evidence.update(*rows(gate, 100, badness, rng))
    return evidence


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_is_certified_on_the_side_that_is_true(name):
    """5,000 good rows certify the good side alone, 5,000 bad ones the breach alone."""
    good, bad = filled(GATES[name], (50, 0)), filled(GATES[name], (50, 1))
    assert good.log_e_good >= math.log(20) > 1.0 > good.log_e_breach
    assert bad.log_e_breach >= math.log(1 / ALPHA) > 1.0 > bad.log_e_good
    assert good.samples == bad.samples == 5000


@pytest.mark.parametrize("name", sorted(GATES))
def test_bounds_agree_with_the_verdict(name):
    """The bound on the bad side has passed the limit, the value lies between the bounds."""
    gate, bad = GATES[name], filled(GATES[name], (50, 1))
    lower, upper = bad.lower(ALPHA / 2), bad.upper(0.025)
    if not gate.parsed.upper:
        lower, upper = bad.lower(0.025), bad.upper(ALPHA / 2)
    assert lower <= bad.value <= upper
    assert lower > bad.limit if gate.parsed.upper else upper < bad.limit


@pytest.mark.parametrize("name", sorted(GATES))
def test_a_healthy_past_hides_no_regression(name):
    """After 40,000 good rows, a breach is certified within 4,000 bad ones."""
    evidence = filled(GATES[name], (400, 0), (40, 1))
    assert evidence.log_e_breach >= math.log(1 / ALPHA)


@settings(max_examples=15)
@given(
    name=st.sampled_from(sorted(GATES)),
    batches=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 1)), max_size=6),
)
def test_a_round_trip_at_any_moment_changes_nothing(name, batches):
    """Packed and unpacked after every batch, evidence ends at the same bits."""
    rng = np.random.default_rng(2)
    kept = evidence_for(GATES[name], alpha_breach=ALPHA, latency_cap_s=1.0)
    packed = evidence_for(GATES[name], alpha_breach=ALPHA, latency_cap_s=1.0)
    for n, badness in batches:
        control, candidate = rows(GATES[name], n, badness, rng)
        kept.update(control, candidate)
        packed = msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=AnyEvidence)
        packed.update(control, candidate)
    assert packed == kept
    assert math.isfinite(kept.log_e_breach)
    assert math.isfinite(kept.log_e_good)


@pytest.mark.parametrize("name", sorted(GATES))
def test_its_state_does_not_grow(name):
    """Packed, the state after 60,000 rows is at most 10 % larger than after 600, and below 2 kB."""
    small, large = filled(GATES[name], (6, 0)), filled(GATES[name], (600, 0))
    sizes = [len(msgspec.msgpack.encode(evidence)) for evidence in (small, large)]
    assert sizes[1] <= min(1.1 * sizes[0] + 20, 2000)


@pytest.mark.parametrize("name", sorted(GATES))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_refuses_numbers_that_are_none(name, bad):
    """NaN and infinity raise, and nothing of their batch is counted."""
    evidence = filled(GATES[name], (6, 0))
    before = msgspec.msgpack.encode(evidence)
    with pytest.raises(ValueError, match="values"):
        evidence.update([0.0, 0.0], [0.0, bad])
    assert msgspec.msgpack.encode(evidence) == before


def test_a_rate_is_of_zeros_and_ones():
    """Half a hit is refused."""
    evidence = filled(GATES["semantic-errors"], (1, 0))
    with pytest.raises(ValueError, match="0 or 1"):
        evidence.update([], [0.5])
    assert evidence.samples == 100


def test_a_floor_forgives_what_is_relatively_large():
    """30 ms more on 2 ms is +1500 %, but below the floor of 50 ms: certified good; 100 ms not."""
    rng = np.random.default_rng(4)
    for slower, certified in ((0.03, "good"), (0.1, "breach")):
        evidence = evidence_for(GATES["latency-vs-control"], alpha_breach=ALPHA)
        for _ in range(20):
            control = rng.lognormal(math.log(0.002), 0.3, 100)
            evidence.update(control, rng.lognormal(math.log(0.002), 0.3, 100) + slower)
        assert (evidence.log_e_good >= math.log(20)) is (certified == "good")
        assert (evidence.log_e_breach >= math.log(1 / ALPHA)) is (certified == "breach")
        assert evidence.limit == pytest.approx(0.052, abs=1e-3)


def test_the_first_error_breaks_a_rate_of_zero():
    """At "<= 0" no error certifies nothing, and one is decisive."""
    gate = msgspec.structs.replace(GATES["system-errors"], objective="<= 0")
    evidence = evidence_for(gate, alpha_breach=ALPHA)
    evidence.update([], np.zeros(1000))
    assert evidence.log_e_breach < 0.0
    evidence.update([], np.eye(1, 100)[0])
    assert evidence.log_e_breach >= math.log(1 / ALPHA)


def test_an_unbounded_mean_can_have_an_absolute_limit():
    """Mean latency <= 0.5 s is a difference to a number."""
    gate = Gate(
        name="mean-latency",
        metric=Metric.PROCESSING_SECONDS,
        statistic=Statistic.MEAN,
        objective="<= 0.5",
        role=GateRole.GUARDRAIL,
    )
    evidence = evidence_for(gate, alpha_breach=ALPHA)
    for _ in range(20):
        evidence.update([], np.random.default_rng(5).lognormal(-0.5, 0.4, 100))
    assert evidence.limit == 0.5
    assert evidence.log_e_breach >= math.log(1 / ALPHA)
    assert 0.5 < evidence.lower(ALPHA / 2) < evidence.value


def test_latencies_are_capped_at_twice_the_allowed_quantile():
    """The default policy allows 0.5 s at p95; without a quantile gate there is no cap."""
    assert latency_cap(list(GATES.values())) == 1.0
    assert latency_cap([GATES["coherence"]]) is None


@pytest.mark.parametrize(
    "name", ["bernoulli", "bounded_mean", "change", "contrast", "ratio_mismatch", "sustained"]
)
def test_the_examples_stop_where_they_say(name):
    """The seeded doctests of each module, with the exact index at which it stops."""
    result = doctest.testmod(importlib.import_module(f"streams.gates.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
