"""Gates on the running window: the verdict of each kind, and what is asked of the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.control import Verdict
from schemas.policy import Gate
from streams.window_gates import Judgement, judge
from tests.support.folding import gate


def moments(values: list[float]) -> list[float]:
    """Count, sum and sum of squares."""
    return [len(values), sum(values), sum(v * v for v in values)]


def judged(
    of: Gate,
    candidate: list[float],
    control: list[float] | None = None,
    *,
    control_exists: bool = True,
) -> Judgement:
    """A gate's judgement of what it is tested on."""
    return judge(
        of,
        np.array([moments(control or []), moments(candidate)]),
        control_exists=control_exists,
    )


def rate(bad: int, n: int) -> list[float]:
    """Zeros and ones."""
    return [1.0] * bad + [0.0] * (n - bad)


def around(mean: float, n: int = 1000, spread: float = 0.1) -> list[float]:
    """Numbers with a mean and a spread."""
    return [mean - spread, mean + spread] * (n // 2)


@pytest.mark.parametrize(
    ("bad", "verdict", "holds"),
    [
        (0, Verdict.SUCCESSFUL, True),
        (12, Verdict.INCONCLUSIVE, True),
        (30, Verdict.INCONCLUSIVE, False),
        (60, Verdict.FAILED, False),
    ],
)
def test_a_rate_is_judged_by_its_confidence_bounds(bad: int, verdict: Verdict, holds: bool) -> None:
    """Errors of 1 % are certified good, possible, suspected and certified bad in turn."""
    of = gate("semantic-errors")
    judgement = judged(of, rate(bad, 2000))
    report = judgement.report
    assert report.verdict is verdict, report.reason
    assert (judgement.holds, judgement.breaching) == (holds, not holds)
    assert (report.samples, report.value, report.limit) == (2000, bad / 2000, 0.01)
    assert report.lower is not None
    assert report.upper is not None
    assert 0 <= report.lower <= bad / 2000 <= report.upper <= 1


def test_a_rate_with_a_lower_limit_fails_when_it_is_low() -> None:
    """Cache hits below 70 % are bad, and above it good."""
    of = gate("cache-hits")
    assert judged(of, rate(500, 1000)).report.verdict is Verdict.FAILED
    assert judged(of, rate(900, 1000)).report.verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize(
    ("above", "verdict"),
    [(20, Verdict.SUCCESSFUL), (50, Verdict.INCONCLUSIVE), (150, Verdict.FAILED)],
)
def test_a_quantile_is_judged_by_exceedances(above: int, verdict: Verdict) -> None:
    """A p95 holds while at most 5 % of the rows are beyond the limit."""
    report = judged(gate("latency-p95"), rate(above, 1000)).report
    assert report.verdict is verdict
    assert report.limit == pytest.approx(0.05)
    assert "share above 0.5" in report.reason


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(0.8, Verdict.SUCCESSFUL), (0.7, Verdict.INCONCLUSIVE), (0.6, Verdict.FAILED)],
)
def test_a_mean_is_judged_by_its_standard_error(mean: float, verdict: Verdict) -> None:
    """A coherence of 0.7 or more is asked for."""
    report = judged(gate("coherence"), around(mean)).report
    assert report.verdict is verdict
    assert report.value == pytest.approx(mean)


@pytest.mark.parametrize(
    ("candidate", "control", "verdict"),
    [
        (1.05, 1.0, Verdict.SUCCESSFUL),
        (1.1, 1.0, Verdict.INCONCLUSIVE),
        (1.3, 1.0, Verdict.FAILED),
        (0.00004, 0.00002, Verdict.SUCCESSFUL),
        (0.04, 0.0, Verdict.SUCCESSFUL),
        (0.09, 0.0, Verdict.FAILED),
    ],
)
def test_slower_than_control_counts_beyond_the_floor(
    candidate: float, control: float, verdict: Verdict
) -> None:
    """10 % longer is bad, but never while it is less than the floor of 50 ms."""
    of = gate("latency-vs-control")
    report = judged(of, around(candidate, spread=0.01), around(control, spread=0.01)).report
    assert report.verdict is verdict, report.reason
    assert report.control_samples == 1000
    assert report.limit == pytest.approx(max(1.1 * control, control + 0.05))


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [(0.59, Verdict.SUCCESSFUL), (0.57, Verdict.INCONCLUSIVE), (0.5, Verdict.FAILED)],
)
def test_worse_than_control_fails(candidate: float, verdict: Verdict) -> None:
    """A score of less than 95 % of the control arm's is bad; one somewhat lower is not."""
    report = judged(gate("score-vs-control"), around(candidate), around(0.6)).report
    assert report.verdict is verdict, report.reason
    assert report.limit == pytest.approx(0.57)


def test_the_floor_of_a_lower_limit_is_below_control() -> None:
    """A score that is lower by no more than the floor is no harm, whatever the percentage."""
    of = gate("score-vs-control", floor=0.1)
    report = judged(of, around(0.55), around(0.6)).report
    assert report.verdict is Verdict.SUCCESSFUL
    assert report.limit == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.05, Verdict.SUCCESSFUL), (0.0, Verdict.INCONCLUSIVE), (-0.05, Verdict.FAILED)],
)
def test_a_paired_gate_is_judged_by_differences(difference: float, verdict: Verdict) -> None:
    """What the objective makes of the rules score is taken off row by row: the limit is 0."""
    report = judged(gate("improvement"), around(difference)).report
    assert report.verdict is verdict
    assert report.limit == 0.0
    assert "rules score" in report.reason


@pytest.mark.parametrize("name", ["semantic-errors", "coherence", "latency-p95", "improvement"])
def test_too_few_rows_are_no_verdict(name: str) -> None:
    """Below the minimum number of rows nothing holds and nothing is broken."""
    judgement = judged(gate(name), [1.0] * 199)
    assert judgement.report.verdict is Verdict.INCONCLUSIVE
    assert not judgement.holds
    assert not judgement.breaching
    assert "199 of 200" in judgement.report.reason


def test_too_few_control_rows_are_no_verdict() -> None:
    """A comparison needs rows of both arms."""
    judgement = judged(gate("score-vs-control"), around(0.5), around(0.6, n=100))
    assert judgement.report.verdict is Verdict.INCONCLUSIVE
    assert (judgement.report.samples, judgement.report.control_samples) == (1000, 100)
    assert not judgement.holds
    assert "100 of 200 control rows" in judgement.report.reason


def test_without_a_control_arm_comparisons_do_not_hinder() -> None:
    """At 100 % nobody is left to compare with: nothing is claimed, and nothing held up."""
    judgement = judged(gate("score-vs-control"), around(0.1), control_exists=False)
    assert judgement.report.verdict is Verdict.INCONCLUSIVE
    assert judgement.holds
    assert not judgement.breaching


def test_no_rows_at_all_are_no_success() -> None:
    """No data is never good news."""
    for name in ("semantic-errors", "coherence", "score-vs-control", "improvement"):
        judgement = judged(gate(name, min_samples=1), [])
        assert judgement.report.verdict is Verdict.INCONCLUSIVE
        assert not judgement.holds


@given(
    bad=st.integers(min_value=0, max_value=300),
    good=st.integers(min_value=0, max_value=2000),
)
@settings(deadline=None)
def test_a_verdict_agrees_with_its_numbers(bad: int, good: int) -> None:
    """Failed and successful exclude each other, and the reason holds the numbers."""
    judgement = judged(gate("semantic-errors", min_samples=1), rate(bad, bad + good))
    report = judgement.report
    if report.value is None:
        assert report.verdict is Verdict.INCONCLUSIVE
        return
    assert report.lower is not None
    assert report.upper is not None
    assert report.limit is not None
    # The last digit of a bound at 0 or 1 is rounding.
    assert report.lower - 1e-9 <= report.value <= report.upper + 1e-9
    assert (report.verdict is Verdict.FAILED) == (report.lower > report.limit)
    assert (report.verdict is Verdict.SUCCESSFUL) == (report.upper <= report.limit)
    assert not (report.verdict is Verdict.FAILED and judgement.holds)
    assert f"{report.value:.4g}" in report.reason


def test_a_report_is_the_gate_in_numbers() -> None:
    """A report says which gate it is about, and whether that only watches."""
    of = gate("coherence", dry_run=True)
    for report in (judged(of, around(0.6)).report, judged(of, []).report):
        assert (report.gate, report.role, report.metric, report.objective, report.dry_run) == (
            "coherence",
            "guardrail",
            "coherence",
            ">= 0.7",
            True,
        )
