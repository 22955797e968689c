"""What is wrong with a policy that its types cannot say: keys that contradict each other."""

from __future__ import annotations

import math

from schemas.drift import DriftRules
from schemas.drift_reference import reference_contradictions
from schemas.policy import Against, Gate, GateRole, Metric, Policy, Stage, Statistic
from schemas.rollout import DeploymentKind, Mode

__all__ = ["MAX_PANES", "RESERVED_SEGMENTS", "contradictions"]

MAX_PANES = 600
"""A window: each is kept, and merged at every hop."""
RESERVED_SEGMENTS = ("all", "rest")
"""The total over all segments, and what no segment matched."""


def contradictions(policy: Policy) -> list[tuple[str, str]]:
    """What is wrong with a policy that the types cannot say, as (key, reason)."""
    found: list[tuple[str, str]] = []
    for kind, names in (
        ("deployments", [d.name for d in policy.deployments]),
        ("gates", [g.name for g in policy.gates]),
        ("segments", [s.name for s in policy.segments]),
    ):
        found += [(kind, f"the name {n!r} is used twice") for n in sorted(set(names))
                  if names.count(n) > 1]  # fmt: skip
    known = ", ".join(d.name for d in policy.deployments)
    for role in ("blue", "green"):
        name = getattr(policy, role)
        if policy.deployment(name) is None:
            found.append((role, f"no deployment is called {name!r}; there are: {known}"))
    if policy.blue == policy.green:
        found.append(("green", f"blue and green are both {policy.blue!r}"))
    found += _value_contradictions(policy)
    found += _stage_contradictions(policy)
    found += _mode_contradictions(policy)
    found += _drift_contradictions(policy.drift)
    for i, freeze in enumerate(policy.freezes):
        try:
            begins, ends = freeze.span_ms
        except ValueError as error:
            found.append((f"freezes[{i}]", str(error)))
        else:
            if ends <= begins:
                found.append((f"freezes[{i}].to", "is not after its from"))
    for i, gate in enumerate(policy.gates):
        wrong = _gate_contradictions(gate) + _gate_in_policy(gate, policy)
        found += [(f"gates[{i}].{key}", reason) for key, reason in wrong]
    return found


def _gate_in_policy(gate: Gate, policy: Policy) -> list[tuple[str, str]]:
    """What is wrong with a gate among the stages and segments that there are."""
    known = [segment.name for segment in policy.segments]
    names = ", ".join(sorted(known)) or "none"
    found = [
        ("segments", f"no segment {name!r}; there are: {names}")
        for name in gate.segments
        if name not in known
    ]
    if gate.metric.is_feedback and not gate.optional and policy.stages[0].percent == 0:
        reason = "must be true: in shadow green serves nobody, so nobody can speak of it"
        found.append(("optional", reason))
    return found


def _drift_contradictions(rules: DriftRules) -> list[tuple[str, str]]:
    found = [
        ("drift.features", f"{name} is named twice")
        for name in sorted(set(rules.features))
        if rules.features.count(name) > 1
    ]
    reference = rules.reference
    if reference is None:
        return found
    found += [(f"drift.reference.{k}", why) for k, why in reference_contradictions(reference)]
    return found


def _value_contradictions(policy: Policy) -> list[tuple[str, str]]:
    found = []
    for i, deployment in enumerate(policy.deployments):
        if deployment.kind is DeploymentKind.SEMANTIC and deployment.semantic_weight == 0:
            found.append(
                (f"deployments[{i}].semantic_weight", "a semantic deployment needs a share > 0")
            )
    for i, segment in enumerate(policy.segments):
        if any(isinstance(v, float) and not math.isfinite(v) for v in segment.values):
            found.append((f"segments[{i}].values", "a number must be finite"))
    windows = policy.windows
    if windows.hop_ms % windows.pane_ms:
        found.append(("windows.hop_seconds", "is not a whole number of panes"))
    if windows.window_ms % windows.hop_ms:
        found.append(("windows.window_seconds", "is not a whole number of hops"))
    if windows.window_ms > MAX_PANES * windows.pane_ms:
        found.append(("windows.pane_seconds", f"makes more than {MAX_PANES} panes a window"))
    found += [
        (f"segments[{i}].name", f"{segment.name!r} is the name of a total")
        for i, segment in enumerate(policy.segments)
        if segment.name in RESERVED_SEGMENTS
    ]
    return found


def _stage_contradictions(policy: Policy) -> list[tuple[str, str]]:
    stages, found = policy.stages, []
    known = {segment.name: segment for segment in policy.segments}
    for i, stage in enumerate(stages):
        if i:
            found += [(f"stages[{i}].{key}", why) for key, why in _step(stages[i - 1], stage)]
        if stage.max_seconds <= stage.min_seconds:
            found.append((f"stages[{i}].max_seconds", "is not above min_seconds"))
        if stage.percent > 0 and stage.shadow_percent > 0:
            found.append((f"stages[{i}].shadow_percent", "only a stage at 0 % has a shadow"))
        for name in stage.segments:
            segment = known.get(name)
            if segment is None:
                names = ", ".join(sorted(known)) or "none"
                found.append((f"stages[{i}].segments", f"no segment {name!r}; there are: {names}"))
            elif segment.force is not None:
                found.append(
                    (f"stages[{i}].segments", f"{name!r} is forced to an arm, whatever the share")
                )
    return found


def _step(before: Stage, after: Stage) -> list[tuple[str, str]]:
    """What is wrong with a stage that follows another.

    Among the same users the percentage rises. A later stage may be for more segments, and then at
    a lower percentage: that is the one way in which a stage takes green away from users, of the
    segments that went first. A shadow serves nobody, so whatever follows one only adds.
    """
    if before.percent == 0:
        return [] if after.percent > 0 else [
            ("percent", f"{after.percent:g} does not rise over the stage before")
        ]  # fmt: skip
    first, then = set(before.segments), set(after.segments)
    if then and not (first and first <= then):
        return [("segments", "leaves out users of the stage before: stages may only widen")]
    if first == then and after.percent <= before.percent:
        return [("percent", f"{after.percent:g} does not rise over the stage before")]
    if after.percent == 0:
        return [("percent", "only the first stages serve nobody")]
    return []


def _mode_contradictions(policy: Policy) -> list[tuple[str, str]]:
    stages = policy.stages
    last = f"stages[{len(stages) - 1}]"
    if policy.mode is Mode.ROLLOUT:
        found = []
        if stages[-1].percent != 100:
            found.append((f"{last}.percent", "the last stage must be 100"))
        if stages[-1].segments:
            found.append((f"{last}.segments", "the last stage is for everybody"))
        before = stages[-2] if len(stages) > 1 else None
        if before and not before.segments and before.percent >= 100 - policy.holdback_percent:
            found.append(
                ("holdback_percent", "leaves the last stage no more users than the one before")
            )
        return found
    found = []
    if [stage.percent > 0 for stage in stages] not in ([True], [False, True]):
        found.append(("stages", "an experiment has one stage with a share, and at most a shadow"))
    if stages[-1].percent >= 100:
        found.append((f"{last}.percent", "an experiment needs users who stay on blue"))
    if policy.holdback_percent:
        found.append(("holdback_percent", "an experiment holds back what its percent leaves"))
    if not any(g.role is GateRole.PROMOTION and not g.dry_run for g in policy.gates):
        found.append(("gates", "an experiment needs a promotion gate: what green wins by"))
    return found


def _gate_contradictions(gate: Gate) -> list[tuple[str, str]]:
    try:
        objective = gate.parsed
    except ValueError as error:
        return [("objective", str(error))]
    metric, against, quantile = gate.metric, gate.against, gate.statistic.quantile
    promotes, lasts = gate.role is GateRole.PROMOTION, gate.sustained_seconds > 0
    wrong = [
        (
            objective.relative != (against is not None),
            "against",
            "goes with a relative objective, and a relative objective needs it",
        ),
        (
            gate.statistic not in _statistics(metric),
            "statistic",
            f"{metric} cannot be judged by {gate.statistic}",
        ),
        (
            objective.relative and gate.statistic is not Statistic.MEAN,
            "statistic",
            "a relative objective compares means",
        ),
        (
            against is not None and metric.is_health,
            "against",
            "analyzers serve both arms: there is nothing to compare",
        ),
        (
            against is Against.RULES and metric is not Metric.SCORE,
            "against",
            "only the score has a rules value of the same prompt",
        ),
        (
            metric.is_rate and not 0 <= objective.limit <= 1,
            "objective",
            f"a rate lies in [0, 1], not at {objective.limit:g}",
        ),
        (
            quantile is not None and not objective.upper,
            "objective",
            "a quantile has an upper limit: '<= ...'",
        ),
        (
            metric.is_health and not objective.upper,
            "objective",
            f"{metric} has an upper limit: '<= ...'",
        ),
        (gate.floor > 0 and not objective.relative, "floor", "goes with a relative objective"),
        (
            lasts and metric.is_feedback,
            "sustained_seconds",
            "feedback comes too seldom to be watched by windows",
        ),
        (
            lasts and metric.is_health,
            "sustained_seconds",
            f"{metric} counts over the whole stage already",
        ),
        (lasts and promotes, "sustained_seconds", "a promotion gate has no breach to sustain"),
        (
            bool(gate.segments) and metric.is_health,
            "segments",
            "analyzers serve users of all segments",
        ),
        (
            gate.max_samples is not None and not promotes,
            "max_samples",
            "goes with a promotion gate: any other one is watched to the end",
        ),
        (
            gate.max_samples is not None and gate.max_samples <= gate.min_samples,
            "max_samples",
            "is not above min_samples",
        ),
        (
            promotes and metric.is_health,
            "role",
            "analyzers that run well are no reason to promote",
        ),
    ]
    return [(key, reason) for is_wrong, key, reason in wrong if is_wrong]


def _statistics(metric: Metric) -> tuple[Statistic, ...]:
    """What a metric can be judged by."""
    if metric.is_rate:
        return (Statistic.RATE,)
    if metric is Metric.WORKER_CRASHES:
        return (Statistic.COUNT,)
    if metric.is_health:
        return (Statistic.MAX,)
    if metric.is_feedback:
        return (Statistic.MEAN,)
    return (Statistic.MEAN, Statistic.P50, Statistic.P95, Statistic.P99)
