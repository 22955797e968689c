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
        found += [(f"gates[{i}].{key}", reason) for key, reason in _gate_contradictions(gate)]
        if gate.metric.is_feedback and not gate.optional and policy.stages[0].percent == 0:
            reason = "must be true: in shadow green serves nobody, so nobody can speak of it"
            found.append((f"gates[{i}].optional", reason))
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
    found = []
    if objective.relative != (gate.against is not None):
        found.append(
            ("against", "goes with a relative objective, and a relative objective needs it")
        )
    if gate.metric.is_rate != (gate.statistic is Statistic.RATE):
        found.append(("statistic", f"{gate.metric} cannot be judged by {gate.statistic}"))
    if objective.relative and gate.statistic is not Statistic.MEAN:
        found.append(("statistic", "a relative objective compares means"))
    if gate.against is Against.RULES and gate.metric is not Metric.SCORE:
        found.append(("against", "only the score has a rules value of the same prompt"))
    if gate.metric.is_rate and not 0 <= objective.limit <= 1:
        found.append(("objective", f"a rate lies in [0, 1], not at {objective.limit:g}"))
    if gate.statistic.quantile is not None and not objective.upper:
        found.append(("objective", "a quantile has an upper limit: '<= ...'"))
    if gate.floor and not objective.relative:
        found.append(("floor", "goes with a relative objective"))
    if gate.metric.is_feedback and gate.statistic is not Statistic.MEAN:
        found.append(("statistic", f"{gate.metric} is judged by its mean"))
    if gate.metric.is_feedback and gate.sustained_seconds:
        found.append(("sustained_seconds", "feedback comes too seldom to be watched by windows"))
    if gate.sustained_seconds and gate.role is GateRole.PROMOTION:
        found.append(("sustained_seconds", "a promotion gate has no breach to sustain"))
    return found
