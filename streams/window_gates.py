"""Gates judged on the rows of the running window: an estimate and its confidence bounds."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.control import GateReport, Verdict
from schemas.policy import Against, Gate
from streams.metrics import CANDIDATE, CONTROL

__all__ = ["Judgement", "judge"]

_Z = 4.0
"""Half-width of the bounds in standard errors: 3e-5 a look, one-sided.

A gate is looked at after every batch, so a bound that is crossed once in 30,000 looks at a
candidate that does no harm is the least that can be acted on; a wider one would react later.
"""


class Judgement(NamedTuple):
    """A gate's report, and what the rollout needs beside the verdict."""

    report: GateReport
    holds: bool
    """Enough rows, and the estimate is on the good side: nothing speaks against advancing."""
    breaching: bool
    """Enough rows, and the estimate is on the bad side."""


class _Moments(NamedTuple):
    n: int
    mean: float
    variance_of_mean: float

    @classmethod
    def of(cls, moments: npt.NDArray[np.float64]) -> _Moments:
        n, total, squares = (float(x) for x in moments)
        if n < 1:
            return cls(0, 0.0, 0.0)
        mean = total / n
        variance = max(squares / n - mean * mean, 0.0)
        return cls(int(n), mean, variance / n)


def judge(gate: Gate, moments: npt.NDArray[np.float64], *, control_exists: bool) -> Judgement:
    """Judge a gate, but for how long a breach must last.

    Args:
        gate: what is judged.
        moments: count, sum and sum of squares of :func:`streams.metrics.gate_samples` over the
            window; shape (arms, 3).
        control_exists: whether any user is in the control arm.
    """
    control, candidate = _Moments.of(moments[CONTROL]), _Moments.of(moments[CANDIDATE])
    against_control = gate.against is Against.CONTROL
    if against_control and not control_exists:
        reason = "no users in the control arm at this stage: the absolute gates watch on"
        return Judgement(_report(gate, candidate.n, Verdict.INCONCLUSIVE, reason), True, False)
    short = candidate.n < gate.min_samples or (against_control and control.n < gate.min_samples)
    if short:
        seen = f"{candidate.n} of {gate.min_samples} candidate rows"
        if against_control:
            seen += f", {control.n} of {gate.min_samples} control rows"
        report = _report(gate, candidate.n, Verdict.INCONCLUSIVE, seen)
        return Judgement(msgspec.structs.replace(report, control_samples=control.n), False, False)
    value, limit, lower, upper = _estimate(gate, control, candidate)
    bad = value > limit if gate.parsed.upper else value < limit
    certainly_bad = lower > limit if gate.parsed.upper else upper < limit
    certainly_good = upper <= limit if gate.parsed.upper else lower >= limit
    if certainly_bad:
        verdict = Verdict.FAILED
    elif certainly_good:
        verdict = Verdict.SUCCESSFUL
    else:
        verdict = Verdict.INCONCLUSIVE
    report = GateReport(
        gate=gate.name,
        role=gate.role,
        metric=gate.metric,
        objective=gate.objective,
        verdict=verdict,
        reason=_reason(gate, verdict, (value, limit, lower, upper), candidate.n),
        samples=candidate.n,
        control_samples=control.n if against_control else 0,
        value=value,
        limit=limit,
        lower=lower,
        upper=upper,
        dry_run=gate.dry_run,
    )
    return Judgement(report, holds=not bad, breaching=bad)


def _estimate(
    gate: Gate, control: _Moments, candidate: _Moments
) -> tuple[float, float, float, float]:
    """Value, limit, lower and upper bound of the statistic that is tested."""
    objective = gate.parsed
    quantile = gate.statistic.quantile
    if gate.metric.is_rate or quantile is not None:
        limit = objective.limit if quantile is None else 1.0 - quantile
        return (candidate.mean, limit, *_wilson(candidate.mean, candidate.n))
    if gate.against is Against.CONTROL:
        # The bound of mu_candidate - limit(mu_control), shown on the scale of the candidate.
        factor = 1.0 + objective.limit
        limit = factor * control.mean
        floored = control.mean + (gate.floor if objective.upper else -gate.floor)
        if gate.floor and (floored > limit if objective.upper else floored < limit):
            limit, factor = floored, 1.0
        error = _Z * sqrt(candidate.variance_of_mean + factor**2 * control.variance_of_mean)
    else:
        # A paired difference was made against the objective row by row: its limit is 0.
        limit = 0.0 if gate.against is Against.RULES else objective.limit
        error = _Z * sqrt(candidate.variance_of_mean)
    return candidate.mean, limit, candidate.mean - error, candidate.mean + error


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a rate (Wilson 1927, JASA 22)."""
    z2 = _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _reason(
    gate: Gate, verdict: Verdict, numbers: tuple[float, float, float, float], n: int
) -> str:
    value, limit, lower, upper = numbers
    subject = f"{gate.metric} {gate.statistic} {gate.objective}"
    if gate.against is not None:
        subject += f" of {gate.against}"
    if gate.statistic.quantile is not None:
        what = f"share above {gate.parsed.limit:g}"
    elif gate.against is Against.RULES:
        what = f"{gate.metric} less {1 + gate.parsed.limit:g} x rules score"
    else:
        what = f"{gate.metric} {gate.statistic}"
    return (
        f"{subject}: {verdict}: {what} is {value:.4g} in [{lower:.4g}, {upper:.4g}] "
        f"over {n} rows, limit {limit:.4g}"
    )


def _report(gate: Gate, samples: int, verdict: Verdict, reason: str) -> GateReport:
    return GateReport(
        gate=gate.name,
        role=gate.role,
        metric=gate.metric,
        objective=gate.objective,
        verdict=verdict,
        reason=reason,
        samples=samples,
        dry_run=gate.dry_run,
    )
