"""The analyzers of a service, as the log knows them, and the confirmation of rollbacks."""

from __future__ import annotations

from schemas.control import AlertSeverity, AlertStatus, RollbackConfirmed
from schemas.log import Heartbeat, MeasurementBatch
from streams.emit import Emitter
from streams.state import ServiceState, Worker

__all__ = ["check_confirmation", "heard_from", "measured_by", "overtake_confirmation"]

_FORGET_MS = 3_600_000
"""A worker that was silent for an hour is not listed any more."""


def heard_from(state: ServiceState, beat: Heartbeat) -> None:
    """Take a heartbeat."""
    if beat.leaving:
        state.workers.pop(beat.worker_id, None)
        return
    state.workers[beat.worker_id] = Worker(
        incarnation=beat.incarnation,
        seen_ms=state.now_ms,
        interval_ms=beat.interval_ms,
        applied_revision=beat.applied_revision,
    )
    gone = [n for n, w in state.workers.items() if state.now_ms - w.seen_ms > _FORGET_MS]
    for name in gone:
        del state.workers[name]


def measured_by(state: ServiceState, batch: MeasurementBatch) -> None:
    """A batch is a sign of life too; only a heartbeat acknowledges a revision."""
    worker = state.workers.get(batch.worker_id)
    if worker is not None and worker.incarnation == batch.incarnation:
        worker.seen_ms = state.now_ms


def check_confirmation(state: ServiceState, emit: Emitter) -> None:
    """Say so when every live worker has applied a rollback, and alert when one takes too long."""
    pending = state.confirmation
    if pending is None:
        return
    live = state.live_workers()
    behind = [w for w in live if state.workers[w].applied_revision < pending.revision]
    waited_ms = state.now_ms - pending.since_ms
    if live and not behind:
        state.confirmation = None
        emit.control(
            RollbackConfirmed,
            reason=f"all {len(live)} live workers have applied revision {pending.revision}",
            workers=live,
            confirmed_ms=waited_ms,
        )
        if pending.alerted:
            _resolve(
                state,
                f"the rollback of {state.service} is applied by all {len(live)} live workers",
                emit,
            )
    elif not pending.alerted and waited_ms > state.policy.confirm_seconds * 1000:
        pending.alerted = True
        who = f"not applied by {', '.join(behind)}" if behind else "no worker is alive"
        emit.alert(
            _alert_key(state),
            AlertStatus.FIRING,
            AlertSeverity.CRITICAL,
            f"the rollback of {state.service} (revision {pending.revision}) is unconfirmed after "
            f"{waited_ms / 1000:.0f} s: {who}",
            "restart the workers named; a restarted worker reads the rollout state before it works",
        )


def overtake_confirmation(state: ServiceState, emit: Emitter) -> None:
    """Wait no longer for a rollback to be applied: a new rollout has begun."""
    if state.confirmation is not None and state.confirmation.alerted:
        _resolve(state, f"a new rollout of {state.service} has begun", emit)
    state.confirmation = None


def _resolve(state: ServiceState, summary: str, emit: Emitter) -> None:
    emit.alert(
        _alert_key(state), AlertStatus.RESOLVED, AlertSeverity.CRITICAL, summary, "nothing to do"
    )


def _alert_key(state: ServiceState) -> str:
    return f"rollback-unconfirmed/{state.service}"
