"""What follows from the evidence: report breaches, roll back, pause, advance, promote."""

from __future__ import annotations

from schemas.alerting import AlertRule
from schemas.control import AlertSeverity, GateBreached, GateRecovered, GateReport
from schemas.policy import GateRole
from schemas.rollout import Mode, Phase
from streams import rollout
from streams.alerts import fire, resolve
from streams.emit import Emitter
from streams.state import ServiceState
from streams.watch import Watch

__all__ = ["check_time", "decide"]


def decide(state: ServiceState, watch: Watch, emit: Emitter) -> None:
    """Look at the evidence of every gate and act on what it says."""
    failing = watch.failing()
    if failing or state.failed_gates:
        _report_changes(state, watch, failing, emit)
    for role in (GateRole.GUARDRAIL, GateRole.SIGNAL):
        for i in failing:
            if watch.gates[i].role is role and not watch.gates[i].dry_run:
                _act(state, watch, i, emit)
                return
    if state.split is not None and state.split.mismatch:
        _mismatched(state, state.split.report(), emit)
        return
    if state.rollout.phase is Phase.PROGRESSING:
        for i in watch.starved():
            if not watch.gates[i].dry_run:
                report = watch.report(i)
                rollout.pause(state, f"gate {report.gate}: {report.reason}", emit, gate=report)
                return
        for i in watch.exhausted():
            if not watch.gates[i].dry_run:
                _give_up(state, watch, i, emit)
                return
        _advance_if_ready(state, watch, emit)


def check_time(state: ServiceState, emit: Emitter) -> None:
    """A stage that cannot make up its mind pauses: waiting for ever is no answer either.

    And the watch over what was promoted ends when nothing can be taken back any more.
    """
    if state.rollout.phase is Phase.PROMOTED:
        age_ms = state.now_ms - state.rollout.at_ms
        if state.watch is not None and age_ms > state.policy.rollback_window_seconds * 1000:
            rollout.end_watch(state, emit)
        return
    if state.rollout.phase is not Phase.PROGRESSING:
        return
    stage = state.policy.stages[state.rollout.stage]
    seconds = (state.now_ms - state.stage_since_ms) / 1000
    if seconds > stage.max_seconds and state.policy.mode is Mode.EXPERIMENT:
        _end_undecided(state, seconds, emit)
    elif seconds > stage.max_seconds:
        rollout.pause(
            state,
            f"stage {stage.percent:g} % took {seconds:.0f} s, over its limit of "
            f"{stage.max_seconds:g} s: look at `driftgate rollout status` for the gates that "
            "are not satisfied, then resume, promote or abort",
            emit,
        )


def _report_changes(state: ServiceState, watch: Watch, failing: list[int], emit: Emitter) -> None:
    """Say it once when a breach begins, and once when it ends."""
    for i, gate in enumerate(watch.gates):
        known = gate.name in state.failed_gates
        if (i in failing) == known:
            continue
        if known and not watch.holds(i):
            continue
        report = watch.report(i)
        if not known:
            _breached(state, report, emit)
            continue
        state.failed_gates.remove(gate.name)
        emit.control(GateRecovered, reason=report.reason, gate=report)
        resolve(state, emit, AlertRule.GATE_BREACHED, report.reason, subject=gate.name)


def _breached(state: ServiceState, report: GateReport, emit: Emitter) -> None:
    state.failed_gates.append(report.gate)
    id = emit.control(GateBreached, reason=report.reason, gate=report)
    if report.dry_run:
        return
    guardrail = report.role is GateRole.GUARDRAIL
    fire(
        state,
        emit,
        AlertRule.GATE_BREACHED,
        report.reason,
        f"see why: driftgate rollout explain {id} --service {state.service}"
        + (
            "; everybody is being sent back to blue"
            if guardrail
            else "; the rollout waits: resume, promote or abort it"
            if state.rollout.phase in rollout.ACTIVE
            else "; roll back with `driftgate rollout abort` if it harms"
        ),
        severity=AlertSeverity.CRITICAL if guardrail else AlertSeverity.WARNING,
        subject=report.gate,
    )


def _act(state: ServiceState, watch: Watch, i: int, emit: Emitter) -> None:
    guardrail = watch.gates[i].role is GateRole.GUARDRAIL
    if not guardrail and state.rollout.phase is not Phase.PROGRESSING:
        return
    report = watch.report(i)
    if guardrail:
        reason = report.reason
        if state.policy.mode is Mode.EXPERIMENT and state.rollout.phase in rollout.ACTIVE:
            reason = f"blue wins the experiment: {reason}"
        rollout.roll_back(state, reason, emit, gate=report)
    else:
        rollout.pause(state, report.reason, emit, gate=report)


def _mismatched(state: ServiceState, report: GateReport, emit: Emitter) -> None:
    """What is compared is not what was split: nothing is decided on it any more."""
    if report.gate not in state.failed_gates:
        _breached(state, report, emit)
    if state.policy.mode is Mode.EXPERIMENT:
        reason = f"the experiment ends without a winner: {report.reason}"
        rollout.roll_back(state, reason, emit, gate=report)
    elif state.rollout.phase is Phase.PROGRESSING:
        rollout.pause(state, report.reason, emit, gate=report)


def _give_up(state: ServiceState, watch: Watch, i: int, emit: Emitter) -> None:
    """What was to be shown was not, in as many rows as it may take."""
    report, most = watch.report(i), watch.gates[i].max_samples
    reason = f"gate {report.gate} is not certified after {most} rows: {report.reason}"
    if state.policy.mode is Mode.EXPERIMENT:
        reason = f"the experiment ends without a winner: {reason}"
        rollout.roll_back(state, reason, emit, gate=report)
    else:
        rollout.pause(state, reason, emit, gate=report)


def _advance_if_ready(state: ServiceState, watch: Watch, emit: Emitter) -> None:
    stage = state.policy.stages[state.rollout.stage]
    if state.rehearsal or state.now_ms - state.stage_since_ms < stage.min_seconds * 1000:
        return
    if state.policy.freeze_at(state.now_ms) is not None:
        return
    acting = [i for i, gate in enumerate(watch.gates) if not gate.dry_run]
    if not all(watch.passes(i) for i in acting):
        return
    seconds = (state.now_ms - state.stage_since_ms) / 1000
    reason = (
        f"all {len(acting)} gates hold after {seconds:.0f} s at {state.rollout.share * 100:g} %"
    )
    gates = watch.reports()
    if state.policy.mode is Mode.EXPERIMENT and state.rollout.share > 0:
        reason = f"green wins the experiment: {reason}"
    if state.rollout.stage == len(state.policy.stages) - 1:
        rollout.promote(state, reason, emit, gates=gates)
    else:
        rollout.advance(state, reason, emit, gates=gates)


def _end_undecided(state: ServiceState, seconds: float, emit: Emitter) -> None:
    """An experiment that could not tell in its time: blue stays, and the numbers are said."""
    watch = state.watch
    assert watch is not None  # there is one in every active phase
    open_ = [
        (gate, watch.report(i))
        for i, gate in enumerate(watch.gates)
        if not gate.dry_run and not watch.passes(i)
    ]
    # What green was to win by goes first.
    open_.sort(key=lambda each: each[0].role is not GateRole.PROMOTION)
    shown = "; ".join(f"{gate.name}: {_in_numbers(report)}" for gate, report in open_)
    reason = (
        f"the experiment ends without a winner after {seconds:.0f} s, and blue stays; "
        f"not shown: {shown or 'nothing was measured to the end'}"
    )
    rollout.roll_back(state, reason, emit, gate=open_[0][1] if open_ else None)


def _in_numbers(report: GateReport) -> str:
    if report.value is None or report.lower is None or report.upper is None:
        return report.reason
    return (
        f"{report.value:.4g} in [{report.lower:.4g}, {report.upper:.4g}], "
        f"objective {report.objective} (limit {report.limit:.4g}), over {report.samples} rows"
    )
