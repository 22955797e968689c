"""The monitor as a function: one record of the log in, what to say out.

Neither a wall clock nor chance nor IO: folding the same records again gives the same outputs with
the same ids, which is what recovery and replay rest on.

Where measurement batches come faster than `LOOK_MS`, several are counted in one go: what a look at
the evidence costs hardly depends on how many rows are new. When that is follows from the log alone.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import numpy as np

from schemas.alerting import AlertRule
from schemas.control import LogPosition
from schemas.errors import DecodeError
from schemas.feedback_batch import FeedbackBatch
from schemas.log import (
    CommandRecord,
    CommandUnreadable,
    Heartbeat,
    LogRecord,
    MeasurementBatch,
    Rows,
    Tick,
    decode_log_record,
    pooled_rows,
)
from schemas.rollout import Phase
from schemas.topics import Topic
from streams import rollout
from streams.alerts import check_alerts, fire, tell
from streams.decide import check_time, decide
from streams.dedupe import new_rows
from streams.drift.say import drift_readings, watch_drift
from streams.drift.sums import SumsByBatch, measured_alike, sums_by_batch
from streams.emit import Emitter
from streams.feedback import FeedbackSamples
from streams.outputs import Output
from streams.panes import Pane, new_pane
from streams.samples import Samples
from streams.segments import BySegment
from streams.state import PendingBatch, ServiceState
from streams.windows import due_windows, window_metrics
from streams.workers import (
    check_confirmation,
    check_workers,
    count_heartbeat,
    excuse_silence,
    heard_from,
    is_fenced,
    measured_by,
)

__all__ = ["LOOK_MS", "LogEntry", "look", "step"]

LOOK_MS = 20
"""Log time between two looks at the evidence. A look costs by itself what three thousand rows cost:
at a million rows a second that is an eighth of the work, and nobody waits for so long."""
LOOK_ROWS = 20_000
"""As many rows are looked at at once: what waits is in every checkpoint, with 47 bytes a row."""

CHECK_MS = 200
"""Log time between two looks at workers and alerts: each costs as much as a batch, and nobody would
notice if it were more often."""


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
    emit = Emitter(state, LogPosition(entry.partition, entry.offset))
    record = _decoded(entry.value)
    if state.pending:
        if _joins(record, state, entry.timestamp_ms):
            _move_on(state, entry)
            _measure(state, record, emit)
            check_confirmation(state, emit)
            # The rest can wait as long as the batch does: until the next look.
            return emit.outputs
        look(state, emit)
    _move_on(state, entry)
    _close_panes(state, emit)
    try:
        _take(state, record, emit)
    except DecodeError as error:
        _refuse(state, error, emit.cause, emit)
    check_time(state, emit)
    check_confirmation(state, emit)
    _check_health(state, emit)
    return emit.outputs


def _move_on(state: ServiceState, entry: LogEntry) -> None:
    state.last_offset = entry.offset
    if entry.timestamp_ms > state.now_ms:
        excuse_silence(state, entry.timestamp_ms - state.now_ms)
        state.now_ms = entry.timestamp_ms


def _decoded(value: bytes | None) -> LogRecord | DecodeError:
    try:
        return decode_log_record(value)
    except DecodeError as error:
        return error


def _refuse(state: ServiceState, error: DecodeError, at: LogPosition, emit: Emitter) -> None:
    """A record that cannot be used: it stands in the log, is counted, and somebody is told."""
    state.undecodable += 1
    fire(
        state,
        emit,
        AlertRule.LOG_UNREADABLE,
        f"record {at.offset} of partition {at.partition} of the log was passed over, number "
        f"{state.undecodable} of this service: {error}",
        "it still stands there; only analyzers, the curator and the monitor may write to the log",
    )


def _check_health(state: ServiceState, emit: Emitter) -> None:
    """Workers, silence and alerts, a few times a second of log time."""
    if state.now_ms - state.checked_ms < CHECK_MS:
        return
    state.checked_ms = state.now_ms
    check_workers(state, emit)
    if state.watch is not None and state.watch.failing():
        # A worker that is lost sends nothing that could be decided on.
        decide(state, state.watch, emit)
    limit_ms = state.policy.alerts.silence_seconds * 1000
    silent_ms = state.now_ms - state.rows_ms
    tell(
        state,
        emit,
        AlertRule.SILENCE,
        f"no prompt of {state.service} was measured for {silent_ms / 1000:.0f} s"
        if 0 < limit_ms <= silent_ms and state.rows_ms
        else None,
        cure="are there prompts, and is an analyzer alive (`driftgate doctor`)? A service that may "
        "be silent for so long sets alerts.silence_seconds in its policy",
        right="prompts are measured again",
    )
    check_alerts(state, emit)


def _take(state: ServiceState, record: LogRecord | DecodeError, emit: Emitter) -> None:
    if isinstance(record, DecodeError):
        raise record
    if record.service != state.service:
        raise DecodeError(f"a record of {record.service} under the key {state.service}")
    match record:
        case MeasurementBatch():
            _measure(state, record, emit)
        case FeedbackBatch():
            _hear(state, record, emit)
        case Heartbeat():
            heard_from(state, record, emit)
            count_heartbeat(state, record, _counted(state))
            if state.watch is not None:
                decide(state, state.watch, emit)
        case CommandRecord():
            rollout.obey(state, record.command, emit)
            emit.command = None
        case CommandUnreadable():
            _tell_of_command(state, record, emit)
        case Tick():
            pass


def _tell_of_command(state: ServiceState, record: CommandUnreadable, emit: Emitter) -> None:
    """Say that a command was none; once, although it may be forwarded again after a crash."""
    place = f"{Topic.COMMANDS}/{record.partition}"
    if record.offset < state.source_offsets.get(place, 0):
        return
    state.source_offsets[place] = record.offset + 1
    fire(
        state,
        emit,
        AlertRule.COMMAND_UNREADABLE,
        f"the command at partition {record.partition} offset {record.offset} of {Topic.COMMANDS} "
        f"was not obeyed: {record.reason}",
        "send it again in the form of operator-command.v1.schema.json",
        subject=f"{record.partition}/{record.offset}",
    )


def _measure(state: ServiceState, batch: MeasurementBatch, emit: Emitter) -> None:
    """Take a batch; it is looked at at once, unless the last look was a moment ago."""
    measured_by(state, batch, emit)
    if is_fenced(state, batch):
        rows = batch.rows()
        fresh = new_rows(rows, batch.source_topic, state.source_offsets)
        state.fenced_rows += int(np.count_nonzero(fresh))
        return
    state.pending.append(PendingBatch(offset=emit.cause.offset, batch=batch))
    state.pending_rows += len(batch)
    if state.now_ms - state.looked_ms >= LOOK_MS or state.pending_rows >= LOOK_ROWS:
        look(state, emit)


def _joins(
    record: LogRecord | DecodeError, state: ServiceState, at_ms: int
) -> TypeGuard[MeasurementBatch]:
    """Whether a record can be counted together with the batches that wait."""
    if not isinstance(record, MeasurementBatch) or record.service != state.service:
        return False
    first, pane_ms = state.pending[0].batch, state.policy.windows.pane_ms
    return (
        (record.revision, record.source_topic) == (first.revision, first.source_topic)
        and record.segments == first.segments
        and at_ms - state.looked_ms < LOOK_MS
        and max(at_ms, state.now_ms) // pane_ms == state.now_ms // pane_ms
        and not is_fenced(state, record)
        and measured_alike([one.batch for one in state.pending], record)
    )


def look(state: ServiceState, emit: Emitter) -> None:
    """Count the batches that wait, and decide on what all of them say."""
    state.looked_ms = state.now_ms
    pooled = _pooled(state, emit)
    state.pending, state.pending_rows = [], 0
    if pooled is None:
        return
    rows, batches, sums = pooled
    first, whole = batches[0], None
    fresh = new_rows(rows, first.source_topic, state.source_offsets)
    if not fresh.all():
        state.repeated += int(np.count_nonzero(~fresh))
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        whole = [bool(part.all()) for part in np.split(fresh, ends)]
        rows = rows.where(fresh)
    if not len(rows):
        return
    state.measured += len(rows)
    state.rows_ms = state.now_ms
    samples = Samples(rows)
    pane = _current_pane(state)
    pane.add_samples(samples, first.segments)
    control, candidate = (one.total(whole) if one is not None else None for one in sums)
    watch_drift(state, samples, (control, candidate), emit)
    watch = state.watch
    # Rows made under another revision saw another split: they are no evidence on this one.
    if watch is None or first.revision != state.rollout.revision:
        return
    counted = _counted(state)
    if state.rollout.phase is Phase.PROMOTED:
        compared = samples.as_candidate()
    else:
        compared = BySegment(samples, first.segments).of(state.rollout.only_segments)
    several = BySegment(compared, first.segments)
    watch.take(several, counted)
    if state.split is not None:
        state.split.take(compared.rows.bucket)
    if any(watch.timers):
        pane.add_recent(several, watch.gates, counted)
        watch.observe(state.recent + pane.moments, state.now_ms)
    decide(state, watch, emit)


class _Pooled(NamedTuple):
    """Batches as one."""

    rows: Rows
    batches: list[MeasurementBatch]
    sums: tuple[SumsByBatch | None, SumsByBatch | None]


def _pooled(state: ServiceState, emit: Emitter) -> _Pooled | None:
    """The batches that wait, without those that say what cannot be; None when that is all."""
    batches = [one.batch for one in state.pending]
    try:
        return _Pooled(pooled_rows(batches), batches, sums_by_batch(batches))
    except DecodeError:
        good = [one.batch for one in state.pending if _is_good(state, one, emit)]
    if not good:
        return None
    return _Pooled(pooled_rows(good), good, sums_by_batch(good))


def _is_good(state: ServiceState, one: PendingBatch, emit: Emitter) -> bool:
    """Whether a batch can be used; if not, it is counted."""
    try:
        one.batch.rows()
        sums_by_batch([one.batch])
    except DecodeError as error:
        _refuse(state, error, LogPosition(emit.cause.partition, one.offset), emit)
        return False
    return True


def _hear(state: ServiceState, batch: FeedbackBatch, emit: Emitter) -> None:
    """Take what people said of results: it counts where and when it comes."""
    rows = batch.rows()
    fresh = rows.where(new_rows(rows, batch.source_topic, state.source_offsets))
    state.feedback += len(fresh)
    state.repeated += len(rows) - len(fresh)
    if not len(fresh):
        return
    samples = FeedbackSamples(fresh)
    _current_pane(state).add_feedback(samples, batch.segments)
    watch = state.watch
    if watch is None:
        return
    # A result of another revision is no evidence on this one, whenever it is spoken of.
    present = samples.where(fresh.revision == state.rollout.revision)
    if state.rollout.phase is Phase.PROMOTED:
        present = present.as_candidate()
    else:
        present = BySegment(present, batch.segments).of(state.rollout.only_segments)
    if len(present.rows):
        watch.take_feedback(BySegment(present, batch.segments), _counted(state))
        decide(state, watch, emit)


def _counted(state: ServiceState) -> list[bool]:
    """For each gate that is watched whether it takes rows now: not while it warms up."""
    age_ms = state.now_ms - state.stage_since_ms
    gates = state.watch.gates if state.watch is not None else []
    return [age_ms >= gate.warmup_seconds * 1000 for gate in gates]


def _current_pane(state: ServiceState) -> Pane:
    pane_ms = state.policy.windows.pane_ms
    start = state.now_ms // pane_ms * pane_ms
    last = state.panes[-1] if state.panes else None
    if last is None or last.start_ms != start or last.revision != state.rollout.revision:
        gates = len(state.watch.gates) if state.watch is not None else 0
        last = new_pane(start, state.rollout.revision, gates)
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
        split = [state.split.report()] if state.split is not None else []
        gates = state.watch.reports() + split if state.watch is not None else []
        emit.gates(gates, drift_readings(state))
    # An empty pane too: a silent service is reported as zeros, not as nothing.
    _current_pane(state)
