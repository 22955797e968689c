"""From evidence to a verdict with numbers, and how alpha is shared out."""

from __future__ import annotations

import math

from schemas.control import GateReport, Verdict
from schemas.policy import Against, Gate, GateRole
from streams.gates.checks import checked_alpha
from streams.gates.evidence import AnyEvidence, Evidence
from streams.gates.health import HealthEvidence
from streams.gates.sustained import SustainedTimer

__all__ = ["STARVED", "decide", "gate_alpha", "judge", "missing_verdict"]

STARVED = 10
"""A gate whose metric is missing from so many times `min_samples` rows cannot be judged."""

_RESERVE = 0.1
"""Share of alpha that is kept for evidence that begins anew within a stage (resume, retry)."""


def gate_alpha(alpha: float, gates: list[Gate], *, stages: int, restart: int = 0) -> float:
    """What one gate may spend on one period of evidence, so that a whole rollout spends alpha.

    Any guardrail's false breach rolls back, and each stage begins anew, so by the union bound the
    shares add up: ``0.9 alpha / (guardrails * stages)`` for each guardrail in each stage, and
    ``0.1 alpha / (guardrails * r (r + 1))`` for the r-th time that evidence begins anew within the
    rollout for another reason: their sum over all r, however often, is ``0.1 alpha / guardrails``.
    Signal gates share a second alpha in the same way, since a pause is not a rollback. A dry run
    costs nothing, and promotion gates need no share: all of them must pass.

    Args:
        alpha: of the whole rollout.
        gates: of the policy.
        stages: of the policy.
        restart: 0 for the stage's own period, else the how-manieth restart of the rollout.

    Raises:
        ValueError: alpha is not in (0, 1), or there is no stage.
    """
    checked_alpha(alpha)
    if stages < 1 or restart < 0:
        raise ValueError(f"{stages} stages and restart {restart}: there is at least one stage")
    # What is counted of the analyzers has no chance in it, and needs no share.
    active = [gate for gate in gates if not gate.dry_run and not gate.metric.is_health]
    roles = [gate.role for gate in active]
    sharers = max(roles.count(GateRole.GUARDRAIL), roles.count(GateRole.SIGNAL), 1)
    if restart:
        return _RESERVE * alpha / (sharers * restart * (restart + 1))
    return (1.0 - _RESERVE) * alpha / (sharers * stages)


def decide(
    evidence: AnyEvidence,
    *,
    alpha_breach: float,
    alpha_good: float | None,
    timer: SustainedTimer | None = None,
) -> tuple[Verdict, float, float]:
    """The verdict of a gate that has rows enough, the log e-value behind it, and its alpha.

    What `judge` does at every look, without a report; the arguments are the same. Without an
    `alpha_good` Successful is not told from Inconclusive.
    """
    if isinstance(evidence, HealthEvidence):
        return (Verdict.FAILED if evidence.broken else Verdict.SUCCESSFUL), 0.0, alpha_breach
    breach = evidence.log_e_breach
    if breach >= -math.log(alpha_breach):
        lasting = timer is None or timer.satisfied
        return (Verdict.FAILED if lasting else Verdict.INCONCLUSIVE), breach, alpha_breach
    if alpha_good is not None:
        good = evidence.log_e_good
        if good >= -math.log(alpha_good):
            return Verdict.SUCCESSFUL, good, alpha_good
    return Verdict.INCONCLUSIVE, breach, alpha_breach


def judge(
    gate: Gate,
    evidence: AnyEvidence,
    *,
    alpha_breach: float,
    alpha_good: float,
    timer: SustainedTimer | None = None,
    candidate_rows: int | None = None,
    control_rows: int | None = None,
    control_exists: bool = True,
    with_bounds: bool = True,
) -> GateReport:
    """Judge a gate by its evidence.

    Failed when the breach is certified (and has lasted, see `timer`), Successful when the good side
    is certified, Inconclusive when neither is, Error when it cannot be judged. The first two are
    false *ever* with a chance of at most their alpha each. No data is never success.

    Args:
        gate: what is judged.
        evidence: as :func:`streams.gates.evidence.evidence_for` makes it.
        alpha_breach: chance of ever calling a candidate that keeps the objective a breach.
        alpha_good: chance of ever certifying one that breaks it.
        timer: of a gate with ``sustained_seconds``, updated with whether the *recent* rate breaks
            the objective. Such a gate fails only while the timer is satisfied as well: the timer
            alone would be as jumpy as the window, the evidence alone remembers what is over.
        candidate_rows: rows of the candidate arm that could have counted, with the metric or
            without; None for those that did.
        control_rows: the same of the control arm.
        control_exists: whether any user is in the control arm at this stage.
        with_bounds: whether to compute the confidence bounds, which takes a hundred times longer
            than the verdict.

    Raises:
        ValueError: an alpha is not in (0, 1).
    """
    checked_alpha(alpha_breach)
    checked_alpha(alpha_good)
    missing = missing_verdict(
        gate, evidence, candidate_rows, control_rows, control_exists=control_exists
    )
    if missing is not None:
        reason = _missing_reason(
            gate, evidence, missing, candidate_rows, control_rows, control_exists=control_exists
        )
        return _report(gate, evidence, missing, reason)
    verdict, log_e, alpha = decide(
        evidence, alpha_breach=alpha_breach, alpha_good=alpha_good, timer=timer
    )
    if isinstance(evidence, HealthEvidence):
        return _report(gate, evidence, verdict, _health_reason(gate, evidence, verdict))
    reason = _reason(gate, evidence, verdict, log_e, alpha)
    good = verdict is Verdict.SUCCESSFUL
    if timer is not None and not good and log_e >= -math.log(alpha):
        reason += (
            f"; recent rows break it for {timer.elapsed_ms / 1000:g} s of "
            f"{timer.required_ms / 1000:g} s"
        )
    # Half of alpha, since the other half of the breach's capital watches for late changes: what a
    # bound shows, the verdict has said before.
    bounds: tuple[float | None, float | None] = (None, None)
    if with_bounds:
        low_is_breach = gate.parsed.upper
        lower = evidence.lower((alpha_breach if low_is_breach else alpha_good) / 2.0)
        upper = evidence.upper((alpha_good if low_is_breach else alpha_breach) / 2.0)
        bounds = (lower, upper)
    return _report(
        gate, evidence, verdict, reason, bounds=bounds, e_value=(log_e, -math.log(alpha))
    )


def missing_verdict(
    gate: Gate,
    evidence: AnyEvidence,
    candidate_rows: int | None,
    control_rows: int | None,
    *,
    control_exists: bool,
) -> Verdict | None:
    """What a gate says for want of rows; None when it has enough. Arguments as for `judge`.

    Error is for an arm that has rows in plenty, and too few of them with the metric, and for a
    control arm without any row beside such a candidate; an arm with few rows is waited for. An
    optional gate is never an error.
    """
    candidates = max(candidate_rows or 0, evidence.samples)
    arms = [(evidence.samples, candidates)]
    if gate.against is Against.CONTROL:
        if not control_exists:
            return Verdict.INCONCLUSIVE
        arms.append((evidence.control_samples, control_rows or candidates))
    short = [rows for samples, rows in arms if samples < gate.min_samples]
    if not short:
        return None
    # Prompts in plenty are no sign that heartbeats are missing.
    if gate.optional or gate.metric.is_health:
        return Verdict.INCONCLUSIVE
    starved = any(rows >= STARVED * gate.min_samples for rows in short)
    return Verdict.ERROR if starved else Verdict.INCONCLUSIVE


def _missing_reason(
    gate: Gate,
    evidence: AnyEvidence,
    verdict: Verdict,
    candidate_rows: int | None,
    control_rows: int | None,
    *,
    control_exists: bool,
) -> str:
    against_control = gate.against is Against.CONTROL
    if against_control and not control_exists:
        return "no users in the control arm at this stage: the absolute gates watch on"
    if gate.metric.is_health:
        return f"{evidence.samples} of {gate.min_samples} heartbeats"
    seen = f"{evidence.samples} of {gate.min_samples} candidate rows"
    after = f"{max(candidate_rows or 0, evidence.samples)} rows of the candidate arm"
    if against_control:
        seen += f", {evidence.control_samples} of {gate.min_samples} control rows"
        after += f" and {max(control_rows or 0, evidence.control_samples)} of the control arm"
    if gate.optional:
        nothing = "no feedback yet" if gate.metric.is_feedback else "no data yet"
        few = evidence.samples + evidence.control_samples
        return f"{seen}: nothing waits for it" if few else f"{nothing}: {seen}"
    return f"cannot be judged: {seen}, after {after}" if verdict is Verdict.ERROR else seen


def _health_reason(gate: Gate, evidence: HealthEvidence, verdict: Verdict) -> str:
    return (
        f"{gate.metric} {gate.statistic} {gate.objective}: {verdict}: {evidence.value or 0.0:.4g} "
        f"in this stage, limit {evidence.limit:g}, by {evidence.samples} heartbeats"
    )


def _reason(gate: Gate, evidence: Evidence, verdict: Verdict, log_e: float, alpha: float) -> str:
    subject = f"{gate.metric} {gate.statistic} {gate.objective}"
    if gate.against is not None:
        subject += f" of {gate.against}"
    if gate.statistic.quantile is not None:
        what = f"share above {gate.parsed.limit:g}"
    elif gate.against is Against.RULES:
        what = f"{gate.metric} less {1 + gate.parsed.limit:g} x rules score"
    else:
        what = f"{gate.metric} {gate.statistic}"
    rows = f"{evidence.samples} rows"
    if gate.against is Against.CONTROL:
        rows += f" against {evidence.control_samples}"
    side = "good" if verdict is Verdict.SUCCESSFUL else "breach"
    value = 0.0 if evidence.value is None else evidence.value
    sign = ">=" if log_e >= -math.log(alpha) else "<"
    return (
        f"{subject}: {verdict}: {what} is {value:.4g} over {rows}, limit {evidence.limit:.4g}; "
        f"evidence of {side} {log_e:.2f} {sign} {-math.log(alpha):.2f} (log e-value, "
        f"alpha {alpha:.2g})"
    )


def _report(
    gate: Gate,
    evidence: AnyEvidence,
    verdict: Verdict,
    reason: str,
    *,
    bounds: tuple[float | None, float | None] = (None, None),
    e_value: tuple[float | None, float | None] = (None, None),
) -> GateReport:
    lower, upper = (None if x is None or not math.isfinite(x) else x for x in bounds)
    return GateReport(
        gate=gate.name,
        role=gate.role,
        metric=gate.metric,
        objective=gate.objective,
        statistic=gate.statistic,
        against=gate.against,
        verdict=verdict,
        reason=reason,
        samples=evidence.samples,
        control_samples=evidence.control_samples if gate.against is Against.CONTROL else 0,
        value=evidence.value,
        limit=evidence.limit,
        lower=lower,
        upper=upper,
        evidence=e_value[0],
        boundary=e_value[1],
        dry_run=gate.dry_run,
    )
