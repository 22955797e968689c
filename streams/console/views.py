"""The sections of the page as JSON: what is pushed when an event has changed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from schemas.control import (
    AlertStatus,
    ControlEvent,
    GateReport,
    RolloutRolledBack,
    WindowMetrics,
)
from schemas.policy import GateRole, Metric, Objective, Statistic
from schemas.rollout import Phase
from streams.console.advice import cache_view, capacity
from streams.console.model import ALL, ConsoleModel, Section, ServiceView
from streams.console.rollouts import rollout_lines
from streams.console.seen_workers import is_live
from streams.console.verdict import last_decision, standing

__all__ = ["before_after", "decision_view", "encode_section", "services_view"]

PROMPT_CHARS = 2_000
"""Of a curated prompt that is sent: more would not be read on a page, and 100 of the longest
would be 400 KB."""
_PUSHED_DECISIONS = 50

_encoder = msgspec.json.Encoder()


def encode_section(
    section: Section, model: ConsoleModel, service: str, now_ms: int, *, most_workers: int
) -> bytes:
    """A section of a service as JSON.

    Args:
        section: which.
        model: what is known.
        service: whose; one that nothing is known of is shown as such.
        now_ms: wall clock, ms since the epoch.
        most_workers: partitions of the prompts.
    """
    view = model.services.get(service) or ServiceView(service=service)
    if section is Section.WORKERS:
        return _encoder.encode(_workers(view, now_ms, most_workers))
    if section is Section.SERVICE:
        return _encoder.encode(_service(model, view, now_ms))
    return _encoder.encode(_SECTIONS[section](view))


def services_view(model: ConsoleModel, now_ms: int) -> list[dict[str, Any]]:
    """Every service with its verdict, by name."""
    found = []
    for name, view in sorted(model.services.items()):
        stands = standing(view, now_ms)
        found.append(
            {
                "service": name,
                "level": stands.level,
                "title": stands.title,
                "share": view.rollout.share if view.rollout else 0.0,
                "alerts": sum(a.status is not AlertStatus.RESOLVED for a in view.alerts.values()),
            }
        )
    return found


def _service(model: ConsoleModel, view: ServiceView, now_ms: int) -> dict[str, Any]:
    status, rollout = view.status, view.rollout
    decision = last_decision(view)
    return {
        "service": view.service,
        "known": view.service in model.services,
        "standing": standing(view, now_ms),
        "rollout": rollout,
        "phase": rollout.phase if rollout else status.phase if status else Phase.IDLE,
        "revision": rollout.revision if rollout else 0,
        "stage_seconds": status.stage_seconds if status else None,
        "status_at_ms": status.at_ms if status else None,
        "measured": status.measured if status else None,
        "last_decision": decision_view(decision) if decision else None,
        "rollouts": rollout_lines(
            event for known in model.services.values() for event in known.decisions.values()
        )[:20],
        "services": services_view(model, now_ms),
    }


def _gates(view: ServiceView) -> dict[str, Any]:
    status = view.status
    over = status is not None and not status.gates and view.judged is not None
    shown = view.judged if over else status
    gates = shown.gates if shown else []
    if over:
        gates = [_ending(view, gate) for gate in gates]
    return {
        "at_ms": shown.at_ms if shown else None,
        "over": over,
        "gates": [_gate(gate) for gate in gates],
        "before_after": before_after(view, gates),
        "drift": status.drift if status else [],
        "episodes": [decision_view(e) for e in view.drift.values()],
    }


def _ending(view: ServiceView, gate: GateReport) -> GateReport:
    """A gate as its rollout ended: the one that ended it broke after the last report."""
    judged = view.judged
    for event in reversed(view.decisions.values()):
        same = judged is not None and event.rollout_id == judged.rollout_id
        if same and isinstance(event, RolloutRolledBack) and event.gate is not None:
            return event.gate if event.gate.gate == gate.gate else gate
    return gate


def _gate(report: GateReport) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(report)
    found["unit"] = _unit(report)
    return found


def _unit(report: GateReport) -> str:
    """How the value of a gate is to be read: of a quantile it is the share of rows beyond."""
    if report.statistic in _QUANTILES:
        return "share above"
    if report.metric in _UNITS:
        return _UNITS[report.metric]
    if report.metric in _RATES or report.metric == "bucket":
        return "rate"
    return "score"


_QUANTILES = {each.value for each in Statistic if each.quantile is not None}
_UNITS = {
    Metric.PROCESSING_SECONDS.value: "seconds",
    Metric.MODEL_UNAVAILABLE_SECONDS.value: "seconds",
    Metric.MEMORY_GROWTH_MB.value: "MB",
    Metric.WORKER_CRASHES.value: "count",
}
_RATES = {metric.value for metric in Metric if metric.is_rate}


def before_after(view: ServiceView, gates: Sequence[GateReport]) -> dict[str, Any] | None:
    """What the enhancement adds to the rules score of the same prompts (M31, M58).

    The gate tests ``score - (1 + margin) * rules score``. Its value and bounds become a relative
    gain by the mean rules score of the newest window of the candidate arm, so they are as exact as
    that mean is.

    Args:
        view: of the service.
        gates: as they stand, or stood in the end.
    """
    gate = next((g for g in gates if _is_improvement(g)), None)
    window = view.windows.get(f"candidate/{ALL}")
    if gate is None:
        return None
    margin = Objective.parse(gate.objective).limit
    found: dict[str, Any] = {
        "gate": gate.gate,
        "objective": gate.objective,
        "verdict": gate.verdict,
        "samples": gate.samples,
        "wanted": margin,
        "rules_score": window.rules_score_mean if window else None,
        "score": window.score_mean if window else None,
        "gain": None,
        "lower": None,
        "upper": None,
    }
    rules = window.rules_score_mean if window else None
    if rules:
        for name, number in (("gain", gate.value), ("lower", gate.lower), ("upper", gate.upper)):
            found[name] = None if number is None else margin + number / rules
    return found


def _is_improvement(gate: GateReport) -> bool:
    paired = gate.limit == 0.0 and gate.control_samples == 0
    return (
        gate.role is GateRole.PROMOTION
        and gate.metric == Metric.SCORE
        and paired
        and gate.objective.rstrip().endswith("%")
    )


def _windows(view: ServiceView) -> dict[str, Any]:
    control = view.windows.get(f"control/{ALL}")
    arms: dict[str, WindowMetrics | None] = {"control": control}
    candidate = view.windows.get(f"candidate/{ALL}")
    arms["candidate"] = candidate if _recent(candidate, control) else None
    segments = [
        window
        for key, window in sorted(view.windows.items())
        if not key.endswith(f"/{ALL}") and _recent(window, control)
    ]
    return {
        "arms": arms,
        "segments": segments,
        "status_at_ms": view.status.at_ms if view.status else None,
    }


def _recent(window: WindowMetrics | None, control: WindowMetrics | None) -> bool:
    """Whether a window is not of a time long past: the control arm is always reported."""
    if window is None:
        return False
    return control is None or window.end_ms > control.start_ms


def _workers(view: ServiceView, now_ms: int, most_workers: int) -> dict[str, Any]:
    revision = view.rollout.revision if view.rollout else 0
    fenced = set(view.status.fenced_workers) if view.status else set()
    return {
        "workers": [
            {
                "worker": name,
                "live": is_live(seen, now_ms),
                "leaving": seen.beat.leaving,
                "fenced": name in fenced,
                "behind": seen.beat.applied_revision < revision,
                "since_ms": seen.since_ms,
                "seen_ms": seen.seen_ms,
                "restarts": seen.restarts,
                "cpu_share": seen.cpu_share,
                "prompts_per_s": seen.prompts_per_s,
                **{name: getattr(seen.beat, name) for name in _OF_BEAT},
            }
            for name, seen in sorted(view.workers.items())
        ],
        "capacity": capacity(view.workers.values(), now_ms, most_workers=most_workers),
        "cache": cache_view(view.workers.values(), now_ms),
    }


_OF_BEAT = (
    "version",
    "applied_revision",
    "model",
    "encoder",
    "rss_bytes",
    "lag_messages",
    "cache_entries",
    "prompts",
)


def _alerts(view: ServiceView) -> dict[str, Any]:
    order = {"critical": 0, "warning": 1}
    open_ = [a for a in view.alerts.values() if a.status is not AlertStatus.RESOLVED]
    over = [a for a in view.alerts.values() if a.status is AlertStatus.RESOLVED]
    return {
        "open": sorted(open_, key=lambda a: (order[a.severity], -a.since_ms, a.key)),
        "resolved": sorted(over, key=lambda a: -a.at_ms)[:20],
    }


def _decisions(view: ServiceView) -> dict[str, Any]:
    events = list(view.decisions.values())[-_PUSHED_DECISIONS:]
    return {"decisions": [decision_view(event) for event in reversed(events)]}


def decision_view(event: ControlEvent) -> dict[str, Any]:
    """A control event without the reports of every gate, which its reason sums up."""
    found: dict[str, Any] = msgspec.to_builtins(event)
    found.pop("gates", None)
    found.pop("preflight", None)
    if isinstance(event, RolloutRolledBack) and event.gate is None:
        found.pop("gate", None)
    return found


def _cases(view: ServiceView) -> dict[str, Any]:
    cases = []
    for case in reversed(view.cases.values()):
        found: dict[str, Any] = msgspec.to_builtins(case)
        if len(case.prompt) > PROMPT_CHARS:
            found["prompt"] = case.prompt[:PROMPT_CHARS]
            found["prompt_truncated"] = True
        cases.append(found)
    return {"cases": cases[:50]}


_SECTIONS: Mapping[Section, Callable[[ServiceView], dict[str, Any]]] = {
    Section.ALERTS: _alerts,
    Section.CASES: _cases,
    Section.DECISIONS: _decisions,
    Section.GATES: _gates,
    Section.WINDOWS: _windows,
}
