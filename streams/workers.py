"""The analyzers of a service, as the log knows them, and the confirmation of rollbacks."""

from __future__ import annotations

from schemas.alerting import AlertRule
from schemas.control import AlertSeverity, RollbackConfirmed
from schemas.log import Heartbeat, MeasurementBatch, ModelState
from streams.alerts import fire, resolve, resolve_all, tell
from streams.emit import Emitter
from streams.state import ServiceState, Worker

__all__ = [
    "LOG_GAP_MS",
    "check_confirmation",
    "check_workers",
    "count_heartbeat",
    "excuse_silence",
    "heard_from",
    "is_fenced",
    "measured_by",
    "overtake_confirmation",
]

_FORGET_MS = 3_600_000
"""A worker that was silent for an hour is not listed any more."""
LOG_GAP_MS = 5_000
"""While a service is watched its log is never silent for longer: its owner writes a tick a second.
After such a gap it was the broker that was away, or everything, and no worker is to blame."""


def excuse_silence(state: ServiceState, gap_ms: int) -> None:
    """Take a gap in the log out of what workers are measured by.

    Args:
        state: of their service.
        gap_ms: log time between the last record and this one.
    """
    if gap_ms > LOG_GAP_MS:
        for worker in state.workers.values():
            worker.seen_ms += gap_ms


def heard_from(state: ServiceState, beat: Heartbeat, emit: Emitter) -> None:
    """Take a heartbeat."""
    name, known = beat.worker_id, state.workers.get(beat.worker_id)
    if beat.leaving:
        if known is not None and known.incarnation == beat.incarnation:
            _forget(state, name, "it has said goodbye", emit)
        return
    if known is None or known.incarnation != beat.incarnation:
        if known is not None and not known.lost:
            # It is back before anybody has missed it.
            _crashed(state)
        worker = state.workers[name] = Worker(
            incarnation=beat.incarnation, seen_ms=0, interval_ms=0, applied_revision=0
        )
    else:
        worker = known
    worker.seen_ms = state.now_ms
    worker.interval_ms = beat.interval_ms
    worker.lag_messages = beat.lag_messages
    worker.lost = False
    if beat.model is not ModelState.UNAVAILABLE:
        worker.model_away_since_ms = None
    elif worker.model_away_since_ms is None:
        worker.model_away_since_ms = state.now_ms
    resolve(state, emit, AlertRule.WORKER_LOST, f"worker {name} is back", subject=name)
    _obeys(state, name, beat.applied_revision, emit)


def count_heartbeat(state: ServiceState, beat: Heartbeat, counted: list[bool]) -> None:
    """Let the gates on the analyzers count it, unless its worker is fenced or gone."""
    worker = state.workers.get(beat.worker_id)
    if state.watch is not None and worker is not None and not worker.fenced:
        state.watch.take_heartbeat(beat, counted, state.now_ms)


def measured_by(state: ServiceState, batch: MeasurementBatch, emit: Emitter) -> None:
    """A batch is a sign of life, too, and what it was routed by has been applied."""
    worker = state.workers.get(batch.worker_id)
    if worker is not None and worker.incarnation == batch.incarnation:
        worker.seen_ms = state.now_ms
        _obeys(state, batch.worker_id, batch.revision, emit)


def _obeys(state: ServiceState, name: str, revision: int, emit: Emitter) -> None:
    worker = state.workers[name]
    # A batch may come after the heartbeat that it was made before.
    worker.applied_revision = max(worker.applied_revision, revision)
    if worker.applied_revision >= state.rollout.revision:
        worker.behind_since_ms, worker.fenced = None, False
        done = f"worker {name} has applied revision {worker.applied_revision}"
        resolve(state, emit, AlertRule.WORKER_BEHIND, done, subject=name)


def is_fenced(state: ServiceState, batch: MeasurementBatch) -> bool:
    """Whether a batch comes from a worker whose measurements do not count."""
    worker = state.workers.get(batch.worker_id)
    return worker is not None and worker.fenced


def check_workers(state: ServiceState, emit: Emitter) -> None:
    """Find who is lost, who is behind, and what waits."""
    for name, worker in sorted(state.workers.items()):
        silent_ms = state.now_ms - worker.seen_ms
        if worker.is_live(state.now_ms):
            _check_revision(state, name, worker, emit)
        elif silent_ms > _FORGET_MS:
            _forget(state, name, f"nothing was heard of worker {name} for an hour", emit)
        elif not worker.lost:
            worker.lost = True
            _crashed(state)
            if state.watch is not None:
                state.watch.health.gone(name)
            alone = not state.live_workers()
            fire(
                state,
                emit,
                AlertRule.WORKER_LOST,
                f"worker {name} of {state.service} was last heard of {silent_ms / 1000:.0f} s ago"
                + ("; no other is alive" if alone else ""),
                "look at its log and start it again; its prompts wait, or went to the others",
                severity=AlertSeverity.CRITICAL if alone else AlertSeverity.WARNING,
                subject=name,
            )
    _check_models(state, emit)
    _check_lag(state, emit)
    if state.watch is not None:
        state.watch.look_at_health(state.now_ms)


def _crashed(state: ServiceState) -> None:
    if state.watch is not None:
        state.watch.health.crashes += 1


def _forget(state: ServiceState, name: str, why: str, emit: Emitter) -> None:
    state.workers.pop(name, None)
    if state.watch is not None:
        state.watch.health.gone(name)
    for rule in (AlertRule.WORKER_LOST, AlertRule.WORKER_BEHIND):
        resolve(state, emit, rule, why, subject=name)


def _check_revision(state: ServiceState, name: str, worker: Worker, emit: Emitter) -> None:
    """A worker that obeys an old revision for too long must not be measured by the new one."""
    if worker.applied_revision >= state.rollout.revision:
        return
    if worker.behind_since_ms is None:
        worker.behind_since_ms = state.now_ms
    behind_ms = state.now_ms - worker.behind_since_ms
    if worker.fenced or behind_ms <= state.policy.confirm_seconds * 1000:
        return
    worker.fenced = True
    # A rollback that is not applied is an alert of its own, and names the worker.
    if state.confirmation is None:
        fire(
            state,
            emit,
            AlertRule.WORKER_BEHIND,
            f"worker {name} of {state.service} has applied revision {worker.applied_revision}, not "
            f"{state.rollout.revision}, for {behind_ms / 1000:.0f} s: it is fenced, and what it "
            "measures does not count",
            "restart it; a restarted worker reads the rollout state before it works",
            severity=AlertSeverity.CRITICAL,
            subject=name,
        )


def _check_models(state: ServiceState, emit: Emitter) -> None:
    limit_ms = state.policy.alerts.model_unavailable_seconds * 1000
    away = [
        name
        for name, worker in sorted(state.workers.items())
        if worker.model_away_since_ms is not None
        and worker.is_live(state.now_ms)
        and state.now_ms - worker.model_away_since_ms >= limit_ms
    ]
    tell(
        state,
        emit,
        AlertRule.MODEL_UNAVAILABLE,
        f"no model can be loaded by {', '.join(away)}; rules serve" if away else None,
        cure="see the worker's log for the reason; `driftgate doctor --load` tries it here",
        right="every live worker has its model",
        severity=AlertSeverity.CRITICAL,
    )


def _check_lag(state: ServiceState, emit: Emitter) -> None:
    rules = state.policy.alerts
    lag = sum(w.lag_messages for w in state.workers.values() if w.is_live(state.now_ms))
    if lag < rules.lag_messages:
        state.lagging_since_ms = None
    elif state.lagging_since_ms is None:
        state.lagging_since_ms = state.now_ms
    since = state.lagging_since_ms
    late = since is not None and state.now_ms - since >= rules.lag_seconds * 1000
    tell(
        state,
        emit,
        AlertRule.LAG,
        f"{lag} prompts wait, {rules.lag_messages} or more for {rules.lag_seconds:g} s"
        if late
        else None,
        cure="start more analyzers, up to the partitions of the prompts; or shed load "
        "(DRIFTGATE_SHED_LAG_MESSAGES)",
        right=f"{lag} prompts wait",
    )


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
        done = f"the rollback of {state.service} is applied by all {len(live)} live workers"
        resolve(state, emit, AlertRule.ROLLBACK_UNCONFIRMED, done)
        resolve_all(state, emit, AlertRule.GATE_BREACHED, done)
    elif waited_ms > state.policy.confirm_seconds * 1000:
        who = f"not applied by {', '.join(behind)}" if behind else "no worker is alive"
        fire(
            state,
            emit,
            AlertRule.ROLLBACK_UNCONFIRMED,
            f"the rollback of {state.service} (revision {pending.revision}) is unconfirmed after "
            f"{waited_ms / 1000:.0f} s: {who}",
            "restart the workers named; a restarted worker reads the rollout state before it works",
            severity=AlertSeverity.CRITICAL,
        )


def overtake_confirmation(state: ServiceState, emit: Emitter) -> None:
    """Wait no longer for a rollback to be applied: a new rollout has begun."""
    state.confirmation = None
    for rule in (AlertRule.ROLLBACK_UNCONFIRMED, AlertRule.GATE_BREACHED):
        resolve_all(state, emit, rule, f"a new rollout of {state.service} has begun")
