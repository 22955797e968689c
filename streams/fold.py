"""The monitor as a function: one record of the log in, what to say out.

Neither a wall clock nor chance nor IO: folding the same records again gives the same outputs with
the same ids, which is what recovery and replay rest on.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from schemas.control import GateBreached, GateRecovered, GateReport, LogPosition
from schemas.errors import DecodeError
from schemas.feedback_batch import FeedbackBatch
from schemas.log import (
    CommandRecord,
    Heartbeat,
    LogRecord,
    MeasurementBatch,
    Tick,
    decode_log_record,
)
from schemas.policy import GateRole
from schemas.rollout import Mode, Phase
from streams import rollout
from streams.dedupe import new_rows
from streams.drift.say import drift_readings, watch_drift
from streams.drift.sums import embedding_sums
from streams.emit import Emitter
from streams.feedback import FeedbackSamples
from streams.outputs import Output
from streams.panes import Pane, new_pane
from streams.samples import Samples
from streams.state import ServiceState
from streams.watch import Watch
from streams.windows import due_windows, window_metrics
from streams.workers import check_confirmation, heard_from, measured_by

__all__ = ["LogEntry", "step"]

AnySamples = TypeVar("AnySamples", Samples, FeedbackSamples)


class LogEntry(NamedTuple):
    """A record of `driftgate.log` as the broker has it."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


def step(state: ServiceState, entry: LogEntry) -> list[Output]:
    """Fold one record into the state of its service.

    A record that was folded before changes nothing. One that cannot be read is counted, moves the
    clock, and changes nothing else.

    Args:
        state: changed in place.
        entry: a record with this service's key.

    Returns:
        What to publish, in this order.
    """
    if entry.offset <= state.last_offset:
        return []
    state.last_offset = entry.offset
    state.now_ms = max(state.now_ms, entry.timestamp_ms)
    emit = Emitter(state, LogPosition(entry.partition, entry.offset))
    _close_panes(state, emit)
    try:
        _take(state, decode_log_record(entry.value), emit)
    except DecodeError:
        state.undecodable += 1
    _check_stage_time(state, emit)
    check_confirmation(state, emit)
    return emit.outputs


def _take(state: ServiceState, record: LogRecord, emit: Emitter) -> None:
    if record.service != state.service:
        raise DecodeError(f"a record of {record.service} under the key {state.service}")
    match record:
        case MeasurementBatch():
            _measure(state, record, emit)
        case FeedbackBatch():
            _hear(state, record, emit)
        case Heartbeat():
            heard_from(state, record)
        case CommandRecord():
            rollout.obey(state, record.command, emit)
            emit.command = None
        case Tick():
            pass


def _measure(state: ServiceState, batch: MeasurementBatch, emit: Emitter) -> None:
    rows = batch.rows()
    sums = embedding_sums(batch, len(rows))
    fresh = new_rows(rows, batch.source_topic, state.source_offsets)
    state.measured += len(fresh)
    state.repeated += len(rows) - len(fresh)
    measured_by(state, batch)
    if not len(fresh):
        return
    samples = Samples(fresh)
    pane = _current_pane(state)
    pane.add_samples(samples, batch.segments)
    watch_drift(state, samples, sums, emit, whole=len(fresh) == len(rows))
    # Rows made under another revision saw another split: they are no evidence on this one.
    if state.rollout.phase in rollout.ACTIVE and batch.revision == state.rollout.revision:
        gates, counted = state.policy.gates, _counted(state)
        assert state.watch is not None  # there is one in every active phase
        compared = _of_segments(samples, batch.segments, state.rollout.only_segments)
        state.watch.take(compared, gates, counted)
        if state.split is not None:
            state.split.take(compared.rows.bucket)
        if any(state.watch.timers):
            pane.add_recent(compared, gates, counted)
            state.watch.observe(gates, state.recent + pane.moments, state.now_ms)
        _decide(state, state.watch, emit)


def _of_segments(samples: AnySamples, names: list[str], only: list[str]) -> AnySamples:
    """The rows that a stage compares: others are control, but not the same kind of users."""
    if not only:
        return samples
    wanted = np.array([name in only for name in names])
    return samples.where(wanted[samples.rows.segment])


def _hear(state: ServiceState, batch: FeedbackBatch, emit: Emitter) -> None:
    """Take what people said of results: it counts where and when it comes."""
    rows = batch.rows()
    fresh = new_rows(rows, batch.source_topic, state.source_offsets)
    state.feedback += len(fresh)
    state.repeated += len(rows) - len(fresh)
    if not len(fresh):
        return
    samples = FeedbackSamples(fresh)
    _current_pane(state).add_feedback(samples, batch.segments)
    # A result of another revision is no evidence on this one, whenever it is spoken of.
    present = _of_segments(
        samples.where(fresh.revision == state.rollout.revision),
        batch.segments,
        state.rollout.only_segments,
    )
    if state.rollout.phase in rollout.ACTIVE and len(present.rows):
        assert state.watch is not None  # there is one in every active phase
        state.watch.take_feedback(present, state.policy.gates, _counted(state))
        _decide(state, state.watch, emit)


def _counted(state: ServiceState) -> list[bool]:
    """For each gate whether it takes rows now: not while it warms up."""
    age_ms = state.now_ms - state.stage_since_ms
    return [age_ms >= gate.warmup_seconds * 1000 for gate in state.policy.gates]


def _current_pane(state: ServiceState) -> Pane:
    pane_ms = state.policy.windows.pane_ms
    start = state.now_ms // pane_ms * pane_ms
    last = state.panes[-1] if state.panes else None
    if last is None or last.start_ms != start or last.revision != state.rollout.revision:
        last = new_pane(start, state.rollout.revision, len(state.policy.gates))
        state.recent = np.zeros_like(last.moments)
        for pane in state.panes:
            if pane.revision == last.revision:
                state.recent += pane.moments
        state.panes.append(last)
    return last


def _close_panes(state: ServiceState, emit: Emitter) -> None:
    """Report the windows that log time has moved on in, and forget what no window needs."""
    windows = state.policy.windows
    now_pane_ms = state.now_ms // windows.pane_ms * windows.pane_ms
    if state.panes and state.panes[-1].start_ms < now_pane_ms:
        due = due_windows(
            windows,
            state.panes,
            from_ms=state.windows_from_ms,
            closed_ms=state.closed_ms,
            now_ms=now_pane_ms,
        )
        for start_ms, final in due:
            for metrics in window_metrics(
                state.panes,
                windows,
                start_ms=start_ms,
                final=final,
                service=state.service,
                rollout_id=state.rollout.rollout_id,
                stage=state.rollout.stage,
                share=state.rollout.share,
            ):
                emit.metrics(metrics)
        state.closed_ms = now_pane_ms
        oldest_ms = now_pane_ms - windows.window_ms
        state.panes = [p for p in state.panes if p.start_ms > oldest_ms]
        active = state.rollout.phase in rollout.ACTIVE
        split = [state.split.report()] if state.split is not None else []
        emit.gates(_reports(state) + split if active else [], drift_readings(state))
    # An empty pane too: a silent service is reported as zeros, not as nothing.
    _current_pane(state)


def _decide(state: ServiceState, watch: Watch, emit: Emitter) -> None:
    """Look at the evidence of every gate and act on what it says."""
    gates, control_exists = state.policy.gates, _control_exists(state)
    failing = watch.failing(gates, control_exists=control_exists)
    if failing or state.failed_gates:
        _report_changes(state, watch, failing, emit)
    for role in (GateRole.GUARDRAIL, GateRole.SIGNAL):
        for i in failing:
            if gates[i].role is role and not gates[i].dry_run:
                _act(state, watch, i, emit)
                return
    if state.split is not None and state.split.mismatch:
        _mismatched(state, state.split.report(), emit)
        return
    if state.rollout.phase is Phase.PROGRESSING:
        for i in watch.starved(gates, control_exists=control_exists):
            if not gates[i].dry_run:
                report = watch.report(i, state.policy, control_exists=control_exists)
                rollout.pause(state, f"gate {report.gate}: {report.reason}", emit, gate=report)
                return
        _advance_if_ready(state, watch, emit)


def _control_exists(state: ServiceState) -> bool:
    return state.rollout.share < 1.0


def _reports(state: ServiceState) -> list[GateReport]:
    assert state.watch is not None  # there is one in every active phase
    return [
        state.watch.report(i, state.policy, control_exists=_control_exists(state))
        for i in range(len(state.policy.gates))
    ]


def _report_changes(state: ServiceState, watch: Watch, failing: list[int], emit: Emitter) -> None:
    """Say it once when a breach begins, and once when it ends."""
    control_exists = _control_exists(state)
    for i, gate in enumerate(state.policy.gates):
        known = gate.name in state.failed_gates
        if (i in failing) == known:
            continue
        if known and not watch.holds(i, gate, control_exists=control_exists):
            continue
        report = watch.report(i, state.policy, control_exists=control_exists)
        if known:
            state.failed_gates.remove(gate.name)
            emit.control(GateRecovered, reason=report.reason, gate=report)
        else:
            state.failed_gates.append(gate.name)
            emit.control(GateBreached, reason=report.reason, gate=report)


def _act(state: ServiceState, watch: Watch, i: int, emit: Emitter) -> None:
    guardrail = state.policy.gates[i].role is GateRole.GUARDRAIL
    if not guardrail and state.rollout.phase is not Phase.PROGRESSING:
        return
    report = watch.report(i, state.policy, control_exists=_control_exists(state))
    if guardrail:
        reason = report.reason
        if state.policy.mode is Mode.EXPERIMENT:
            reason = f"blue wins the experiment: {reason}"
        rollout.roll_back(state, reason, emit, gate=report)
    else:
        rollout.pause(state, report.reason, emit, gate=report)


def _mismatched(state: ServiceState, report: GateReport, emit: Emitter) -> None:
    """What is compared is not what was split: nothing is decided on it any more."""
    if report.gate not in state.failed_gates:
        state.failed_gates.append(report.gate)
        emit.control(GateBreached, reason=report.reason, gate=report)
    if state.policy.mode is Mode.EXPERIMENT:
        reason = f"the experiment ends without a winner: {report.reason}"
        rollout.roll_back(state, reason, emit, gate=report)
    elif state.rollout.phase is Phase.PROGRESSING:
        rollout.pause(state, report.reason, emit, gate=report)


def _advance_if_ready(state: ServiceState, watch: Watch, emit: Emitter) -> None:
    stage = state.policy.stages[state.rollout.stage]
    if state.now_ms - state.stage_since_ms < stage.min_seconds * 1000:
        return
    if state.policy.freeze_at(state.now_ms) is not None:
        return
    acting = [i for i, gate in enumerate(state.policy.gates) if not gate.dry_run]
    control_exists = _control_exists(state)
    if not all(watch.passes(i, state.policy, control_exists=control_exists) for i in acting):
        return
    seconds = (state.now_ms - state.stage_since_ms) / 1000
    reason = (
        f"all {len(acting)} gates hold after {seconds:.0f} s at {state.rollout.share * 100:g} %"
    )
    gates = _reports(state)
    if state.policy.mode is Mode.EXPERIMENT and state.rollout.share > 0:
        reason = f"green wins the experiment: {reason}"
    if state.rollout.stage == len(state.policy.stages) - 1:
        rollout.promote(state, reason, emit, gates=gates)
    else:
        rollout.advance(state, reason, emit, gates=gates)


def _check_stage_time(state: ServiceState, emit: Emitter) -> None:
    """A stage that cannot make up its mind pauses: waiting for ever is no answer either."""
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


def _end_undecided(state: ServiceState, seconds: float, emit: Emitter) -> None:
    """An experiment that could not tell in its time: blue stays, and the numbers are said."""
    assert state.watch is not None  # there is one in every active phase
    control_exists = _control_exists(state)
    open_ = [
        (gate, report)
        for i, (gate, report) in enumerate(zip(state.policy.gates, _reports(state), strict=True))
        if not gate.dry_run
        and not state.watch.passes(i, state.policy, control_exists=control_exists)
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
