from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from schemas.control import Verdict
from schemas.policy import GateRole, default_policy
from streams.gates.evidence import evidence_for
from streams.gates.judge import gate_alpha, judge
from streams.gates.sustained import SustainedTimer

POLICY = default_policy()
GATES = {gate.name: gate for gate in POLICY.gates}
ALPHAS = {"alpha_breach": 0.0015, "alpha_good": 0.05}


def rate(name, n, hits):
    evidence = evidence_for(GATES[name], alpha_breach=0.0015)
    evidence.update_counts(n, hits)
    return evidence


@pytest.mark.parametrize(
    ("n", "hits", "verdict"),
    [
        (2000, 80, Verdict.FAILED),
        (5000, 5, Verdict.SUCCESSFUL),
        (2000, 22, Verdict.INCONCLUSIVE),
        (199, 199, Verdict.INCONCLUSIVE),
        (0, 0, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_of_an_error_rate(n, hits, verdict):
    """4 % and 0.1 % of errors are certified on either side of 1 %; no data is no verdict."""
    report = judge(GATES["semantic-errors"], rate("semantic-errors", n, hits), **ALPHAS)
    assert report.verdict is verdict
    assert report.samples == n
    assert report.role is GateRole.GUARDRAIL


def test_the_reason_holds_the_numbers():
    """Value, limit, rows, evidence, threshold and alpha, and bounds on the right side."""
    report = judge(GATES["semantic-errors"], rate("semantic-errors", 2000, 80), **ALPHAS)
    for number in ("0.04", "2000 rows", "limit 0.01", ">= 6.50", "alpha 0.0015"):
        assert number in report.reason
    assert report.limit == 0.01 < report.lower < report.value == 0.04 < report.upper


def test_a_bound_never_says_more_than_the_verdict():
    """Over rising counts of errors, the bound passes the limit only where the gate has failed."""
    seen = set()
    for hits in range(10, 80):
        report = judge(GATES["semantic-errors"], rate("semantic-errors", 1500, hits), **ALPHAS)
        seen.add(report.verdict)
        if report.lower > report.limit:
            assert report.verdict is Verdict.FAILED
    assert seen >= {Verdict.FAILED, Verdict.INCONCLUSIVE}


def test_a_breach_must_last_where_the_policy_says_so():
    """A certified breach is inconclusive until recent rows have broken the limit for 300 s."""
    gate, evidence = GATES["errors-sustained"], rate("errors-sustained", 2000, 80)
    timer = SustainedTimer(required_ms=300_000, gap_ms=60_000)
    for second in range(0, 301, 10):
        timer.update(second * 1000, breaching=True)
        report = judge(gate, evidence, timer=timer, **ALPHAS)
        failed = report.verdict is Verdict.FAILED
        assert failed is (second == 300)
        assert f"for {second} s of 300 s" in report.reason
    timer.update(310_000, breaching=False)
    assert judge(gate, evidence, timer=timer, **ALPHAS).verdict is Verdict.INCONCLUSIVE


def test_a_timer_alone_fails_nothing():
    """Recent rows may break the limit for an hour: without certainty there is no breach."""
    timer = SustainedTimer(required_ms=300_000, gap_ms=3_600_000)
    timer.update(0, breaching=True)
    timer.update(3_600_000, breaching=True)
    evidence = rate("errors-sustained", 300, 4)
    report = judge(GATES["errors-sustained"], evidence, timer=timer, **ALPHAS)
    assert report.verdict is Verdict.INCONCLUSIVE


def test_what_cannot_be_judged_is_an_error():
    """A metric that is missing from 2,000 rows of the arm is an Error, from 1,999 not yet."""
    evidence = rate("cache-hits", 150, 150)
    for arm, verdict in ((1999, Verdict.INCONCLUSIVE), (2000, Verdict.ERROR)):
        report = judge(GATES["cache-hits"], evidence, candidate_rows=arm, **ALPHAS)
        assert report.verdict is verdict
        assert "150 of 200" in report.reason


def test_a_missing_control_arm_is_no_error_where_none_can_be():
    """With no user in control the gate rests; with users but without rows it cannot be judged."""
    gate = GATES["score-vs-control"]
    evidence = evidence_for(gate, alpha_breach=0.0015)
    evidence.update([], np.linspace(0.4, 0.6, 3000))
    resting = judge(gate, evidence, control_exists=False, **ALPHAS)
    assert resting.verdict is Verdict.INCONCLUSIVE
    starved = judge(gate, evidence, **ALPHAS)
    assert starved.verdict is Verdict.ERROR
    assert "0 of 200 control rows" in starved.reason


def test_a_report_is_plain_json():
    """Bounds that are infinite yet become null: a contrast of latencies speaks from 400 rows on."""
    gate = GATES["latency-vs-control"]
    evidence = evidence_for(gate, alpha_breach=0.0015)
    evidence.update(np.linspace(0.1, 0.2, 300), np.linspace(0.1, 0.2, 300))
    report = judge(gate, evidence, **ALPHAS)
    assert (report.lower, report.upper) == (None, None)
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report
    without = judge(gate, evidence, with_bounds=False, **ALPHAS)
    assert without.reason == report.reason


def test_alpha_is_never_overspent():
    """Over all guardrails, stages and any number of restarts, the shares stay within alpha."""
    roles = [gate.role for gate in POLICY.gates if not gate.metric.is_health]
    guardrails = roles.count(GateRole.GUARDRAIL)
    stage = gate_alpha(0.05, POLICY.gates, stages=4)
    restarts = math.fsum(gate_alpha(0.05, POLICY.gates, stages=4, restart=r) for r in range(1, 999))
    assert 0.049 < guardrails * (4 * stage + restarts) <= 0.05
    dry = [msgspec.structs.replace(gate, dry_run=True) for gate in POLICY.gates]
    assert gate_alpha(0.05, dry, stages=1) == pytest.approx(0.045)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_refuses_an_alpha_that_cannot_be(alpha):
    """Alphas outside (0, 1) raise."""
    with pytest.raises(ValueError, match="alpha"):
        gate_alpha(alpha, POLICY.gates, stages=4)
    evidence = rate("semantic-errors", 500, 1)
    with pytest.raises(ValueError, match="alpha"):
        judge(GATES["semantic-errors"], evidence, alpha_breach=alpha, alpha_good=0.05)
    with pytest.raises(ValueError, match="stage"):
        gate_alpha(0.05, POLICY.gates, stages=0)
