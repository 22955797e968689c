"""From control events to runs, their metrics, and where the model aliases point."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from schemas.control import (
    ControlEvent,
    DriftCleared,
    DriftDetected,
    GateBreached,
    GateRecovered,
    GateReport,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutRolledBack,
    RolloutStarted,
)
from schemas.policy import Gate, Policy
from schemas.rollout import Deployment, DeploymentKind
from streams.tracking.drafts import (
    Aliases,
    Points,
    RunDraft,
    RunEnd,
    RunOperation,
    RunRef,
    RunStart,
    RunStatus,
    Side,
)
from streams.tracking.points import report_values

__all__ = ["run_operations"]

DEFAULT_HOP_MS = 10_000
"""Of the windows of a rollout whose policy its event does not say: that of the default policy."""
_SYSTEM = "driftgate"


def run_operations(event: ControlEvent) -> list[RunOperation]:
    """What a control event does to its run, in this order; nothing without a rollout."""
    if event.rollout_id is None:
        return []
    run = RunRef(event.service, event.rollout_id)
    if isinstance(event, RolloutStarted):
        return [_start(run, event), _share(run, event), _aliases(run, event)]
    operations: list[RunOperation] = []
    values = _values(event)
    if values:
        operations.append(Points(run, event.at_ms, values))
    tags = _tags(event)
    if tags:
        operations.append(RunDraft(run, event.at_ms, tags))
    match event:
        case RolloutPromoted():
            operations.append(RunEnd(run, event.at_ms, RunStatus.FINISHED))
            operations.append(_aliases(run, event))
        case RolloutRolledBack():
            by_gate = event.actor == _SYSTEM
            status = RunStatus.FAILED if by_gate else RunStatus.KILLED
            operations.append(RunEnd(run, event.at_ms, status))
            operations.append(_aliases(run, event))
    return operations


def _aliases(run: RunRef, event: RolloutStarted | RolloutPromoted | RolloutRolledBack) -> Aliases:
    """Aliases say what the rollout's state says: blue serves, green is the candidate, if any.

    Champion is what serves, under the name that MLflow's users look for.
    """
    match event:
        case RolloutStarted():
            return Aliases(run, event.at_ms, Side.BLUE, Side.GREEN, Side.BLUE)
        case RolloutPromoted():
            return Aliases(run, event.at_ms, Side.GREEN, None, Side.GREEN, "promoted", event.reason)
        case RolloutRolledBack():
            return Aliases(
                run, event.at_ms, Side.BLUE, None, Side.BLUE, "rolled_back", event.reason
            )


def _share(run: RunRef, event: ControlEvent) -> Points:
    return Points(run, event.at_ms, _standing(event))


def _standing(event: ControlEvent) -> dict[str, float]:
    return {"rollout/share": event.share, "rollout/stage": float(event.stage)}


def _values(event: ControlEvent) -> dict[str, float]:
    """Metrics that an event carries: the numbers that it was decided on, too."""
    match event:
        case GateBreached() | GateRecovered():
            broken = float(isinstance(event, GateBreached))
            return {f"gate/{event.gate.gate}/broken": broken, **report_values(event.gate)}
        case RolloutAdvanced() | RolloutPromoted():
            return _standing(event) | _reports(event.gates)
        case RolloutPaused() | RolloutRolledBack():
            return _standing(event) | _reports([event.gate] if event.gate else [])
        case RolloutResumed():
            return _standing(event)
        case RollbackConfirmed():
            return {"rollback/confirmed_seconds": event.confirmed_ms / 1000}
        case DriftDetected() | DriftCleared():
            name = f"drift/{event.feature}/{event.detector}"
            drifting = float(isinstance(event, DriftDetected))
            return {f"{name}/drifting": drifting, f"{name}/statistic": event.statistic}
    return {}


def _reports(reports: list[GateReport]) -> dict[str, float]:
    return {key: value for report in reports for key, value in report_values(report).items()}


def _tags(event: ControlEvent) -> dict[str, str]:
    kind = str(event.__struct_config__.tag)
    match event:
        case RolloutPromoted() | RolloutRolledBack():
            gate = event.gate if isinstance(event, RolloutRolledBack) else None
            verdict = kind.rpartition(".")[2]
            return {
                "driftgate.verdict": verdict,
                "driftgate.gate": gate.gate if gate else "",
                "driftgate.reason": event.reason,
                "driftgate.actor": event.actor,
                "driftgate.last_event": kind,
                "mlflow.note.content": f"**{verdict}** by {event.actor}: {event.reason}",
            }
        case RollbackConfirmed():
            return {"driftgate.confirmed_by": ", ".join(event.workers),
                    "driftgate.last_event": kind}  # fmt: skip
        case GateBreached():
            return {"driftgate.breached": event.gate.gate, "driftgate.last_event": kind}
        case RolloutAdvanced() | RolloutPaused() | RolloutResumed():
            return {"driftgate.last_event": kind, "driftgate.last_reason": event.reason}
    return {}


def _start(run: RunRef, event: RolloutStarted) -> RunStart:
    policy = event.policy
    deployments = dict(zip((Side.BLUE, Side.GREEN), event.deployments, strict=False))
    params = {
        "service": event.service,
        "rollout_id": str(event.rollout_id),
        "mode": event.mode.value,
        "blue": event.blue,
        "green": event.green,
        "code_version": event.code_version,
        "libraries": event.libraries,
        "policy_hash": event.policy_hash,
        "rehearsal": str(event.rehearsal).lower(),
        "started_by": event.actor,
    }
    for side, deployment in deployments.items():
        params |= _deployment_params(side, deployment)
    if policy is not None:
        params |= _policy_params(policy)
    return RunStart(
        run,
        event.at_ms,
        policy.windows.hop_ms if policy else DEFAULT_HOP_MS,
        params,
        {"driftgate.reason": event.reason, "driftgate.last_event": "rollout.started"},
        _document(policy) if policy else None,
        deployments if len(deployments) == 2 else {},
        event.code_version,
    )


def _deployment_params(side: Side, deployment: Deployment) -> dict[str, str]:
    params = {f"{side}.kind": deployment.kind.value}
    if deployment.kind is DeploymentKind.SEMANTIC:
        params[f"{side}.semantic_weight"] = f"{deployment.semantic_weight:g}"
    return params


def _policy_params(policy: Policy) -> dict[str, str]:
    windows = policy.windows
    return {
        "alpha": f"{policy.alpha:g}",
        "stages": " ".join(f"{stage.percent:g}%" for stage in policy.stages),
        "window_seconds": f"{windows.window_seconds:g}",
        "hop_seconds": f"{windows.hop_seconds:g}",
        "holdback_percent": f"{policy.holdback_percent:g}",
        **{f"gate.{gate.name}": _gate_text(gate) for gate in policy.gates},
    }


def _gate_text(gate: Gate) -> str:
    against = f" against {gate.against}" if gate.against else ""
    return f"{gate.metric} {gate.statistic} {gate.objective}{against} ({gate.role})"


def _document(policy: Policy) -> str:
    plain: Any = msgspec.to_builtins(policy)
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text
