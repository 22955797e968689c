"""The read model: what the topics say, folded into what the page shows now.

Taking an event changes a service's view and says which rows are to be kept. Taking the kept items
again (`restore`) gives the same view, so a restart shows what was shown before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from schemas import cloudevents
from schemas.control import (
    AlertEvent,
    AlertStatus,
    ControlEvent,
    DriftCleared,
    DriftDetected,
    GateStatus,
    WindowMetrics,
)
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase
from schemas.log import Heartbeat, MeasurementBatch
from schemas.rollout import RolloutState
from streams.console.decode import CaseGone, Taken
from streams.console.rows import GatePoint, Item, ItemKind, Row, WindowPoint, WorkerPoint
from streams.console.scores import score_counts
from streams.console.seen_workers import WorkerSeen, heard_again
from streams.dedupe import new_rows

__all__ = ["ALL", "Change", "ConsoleModel", "Section", "ServiceView"]

ALL = "all"
"""The segment of the totals, as `streams.windows` names it."""
DECISIONS_KEPT = 200
CASES_KEPT = 100
SAMPLE_MS = 15_000
"""Numbers over time are kept so often: four points a minute, which a sparkline of 15 minutes can
still show, and 12 gates make 70,000 rows a day."""
RESOLVED_KEPT = 50
FORGET_MS = 3_600_000
"""A worker that was silent for so long is not shown any more: the monitor forgets it then, too."""


class Section(StrEnum):
    """A part of the page that is pushed as one."""

    ALERTS = "alerts"
    CASES = "cases"
    DECISIONS = "decisions"
    GATES = "gates"
    SERVICE = "service"
    WINDOWS = "windows"
    WORKERS = "workers"


class Change(NamedTuple):
    """What an event has changed."""

    service: str
    sections: frozenset[Section]
    rows: list[Row]


class ServiceView(msgspec.Struct, kw_only=True):
    """What is known of a service; changed in place."""

    service: str
    rollout: RolloutState | None = None
    status: GateStatus | None = None
    judged: GateStatus | None = None
    """The last status with gates: how they stood when a rollout ended."""
    windows: dict[str, WindowMetrics] = {}
    """The window that is shown, by ``arm/segment``."""
    workers: dict[str, WorkerSeen] = {}
    alerts: dict[str, AlertEvent] = {}
    """The newest event by key; open ones, and those that were resolved last."""
    drift: dict[str, DriftDetected] = {}
    """Episodes that are open, by ``arm/feature``."""
    decisions: dict[str, ControlEvent] = {}
    """The last ones by id, oldest first."""
    cases: dict[str, CuratedCase] = {}
    source_offsets: dict[str, int] = {}
    gates_kept_ms: int = 0
    workers_kept_ms: dict[str, int] = {}


class ConsoleModel:
    """All services that were heard of."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceView] = {}
        self._case_service: dict[str, str] = {}

    def take(self, event: Taken, at_ms: int) -> Change:
        """Take an event.

        Args:
            event: from any topic, in the order of its partition.
            at_ms: its broker time, ms since the epoch.
        """
        if isinstance(event, CaseGone):
            return self._forget_case(event)
        view = self._view(event.service)
        match event:
            case GateStatus():
                return _take_status(view, event)
            case WindowMetrics():
                return _take_window(view, event)
            case Heartbeat():
                return _take_heartbeat(view, event, at_ms)
            case MeasurementBatch():
                return _take_measurements(view, event, at_ms)
            case RolloutState():
                view.rollout = event
                item = _item(view, ItemKind.ROLLOUT, "", event.at_ms, event)
                return _change(view, {Section.SERVICE, Section.GATES}, [item])
            case AlertEvent():
                return _take_alert(view, event)
            case CuratedCase():
                return self._take_case(view, event)
        return _take_decision(view, event)

    def restore(self, items: Iterable[Item]) -> int:
        """Begin anew with what was kept, in the order in which it was kept.

        Returns:
            How many items are of no use: those of an older version of the contract.
        """
        self.services.clear()
        self._case_service.clear()
        useless = 0
        for item in items:
            view = self._view(item.service)
            try:
                if item.value is not None:
                    _RESTORE[item.kind](view, item.key, item.value)
            except DecodeError:
                useless += 1
        for view in self.services.values():
            self._case_service |= dict.fromkeys(view.cases, view.service)
        return useless

    def _view(self, service: str) -> ServiceView:
        if service not in self.services:
            self.services[service] = ServiceView(service=service)
        return self.services[service]

    def _take_case(self, view: ServiceView, case: CuratedCase) -> Change:
        view.cases.pop(case.id, None)
        view.cases[case.id] = case
        self._case_service[case.id] = view.service
        rows: list[Row] = [_item(view, ItemKind.CASE, case.id, case.curated_ms, case)]
        for old in list(view.cases)[:-CASES_KEPT]:
            del view.cases[old]
            self._case_service.pop(old, None)
            rows.append(_gone(view, ItemKind.CASE, old))
        return _change(view, {Section.CASES}, rows)

    def _forget_case(self, gone: CaseGone) -> Change:
        service = self._case_service.pop(gone.id, None)
        if service is None:
            return Change("", frozenset(), [])
        view = self.services[service]
        view.cases.pop(gone.id, None)
        return _change(view, {Section.CASES}, [_gone(view, ItemKind.CASE, gone.id)])


def _take_status(view: ServiceView, status: GateStatus) -> Change:
    known = view.status
    view.status = status
    rows: list[Row] = [_item(view, ItemKind.STATUS, "", status.at_ms, status)]
    if status.gates:
        view.judged = status
        rows.append(_item(view, ItemKind.JUDGED, "", status.at_ms, status))
    verdicts = {g.gate: g.verdict for g in status.gates}
    changed = known is None or {g.gate: g.verdict for g in known.gates} != verdicts
    if changed or status.at_ms - view.gates_kept_ms >= SAMPLE_MS:
        view.gates_kept_ms = status.at_ms
        rows += [
            GatePoint(
                service=view.service,
                gate=gate.gate,
                at_ms=status.at_ms,
                verdict=gate.verdict,
                samples=gate.samples,
                value=gate.value,
                lower=gate.lower,
                upper=gate.upper,
                limit_value=gate.limit,
            )
            for gate in status.gates
        ]
    return _change(view, {Section.GATES, Section.SERVICE}, rows)


def _take_window(view: ServiceView, window: WindowMetrics) -> Change:
    rows: list[Row] = []
    if window.final and window.segment == ALL:
        fields = {n: getattr(window, n) for n in WindowPoint.__struct_fields__}
        rows.append(WindowPoint(**fields))
    key = f"{window.arm}/{window.segment}"
    shown = view.windows.get(key)
    # Of the windows that are open at a time, the one that began first holds most of a full one.
    later = shown is not None and (
        (window.start_ms == shown.start_ms and not shown.final)
        or (window.start_ms > shown.start_ms and shown.final)
        or window.start_ms >= shown.end_ms
    )
    if shown is not None and not later:
        return _change(view, set(), rows)
    view.windows[key] = window
    rows.append(_item(view, ItemKind.WINDOW, key, window.end_ms, window))
    return _change(view, {Section.WINDOWS}, rows)


def _take_heartbeat(view: ServiceView, beat: Heartbeat, at_ms: int) -> Change:
    known = view.workers.get(beat.worker_id)
    seen = heard_again(known, beat, at_ms)
    view.workers[beat.worker_id] = seen
    silent = [w for w, seen_ in view.workers.items() if at_ms - seen_.seen_ms > FORGET_MS]
    due = at_ms - view.workers_kept_ms.get(beat.worker_id, 0) >= SAMPLE_MS
    news = (
        known is None
        or known.since_ms != seen.since_ms
        or beat.leaving
        or (known.beat.applied_revision, known.beat.model) != (beat.applied_revision, beat.model)
    )
    rows: list[Row] = []
    for worker_id in silent:
        del view.workers[worker_id]
        view.workers_kept_ms.pop(worker_id, None)
        rows.append(_gone(view, ItemKind.WORKER, worker_id))
    if due or news:
        rows.append(_item(view, ItemKind.WORKER, beat.worker_id, at_ms, seen))
    if due:
        view.workers_kept_ms[beat.worker_id] = at_ms
        rows.append(
            WorkerPoint(
                service=view.service,
                worker=beat.worker_id,
                at_ms=at_ms,
                rss_bytes=beat.rss_bytes,
                cpu_share=seen.cpu_share,
                prompts_per_s=seen.prompts_per_s,
                lag_messages=beat.lag_messages,
            )
        )
    return _change(view, {Section.WORKERS}, rows)


def _take_measurements(view: ServiceView, batch: MeasurementBatch, at_ms: int) -> Change:
    measured = batch.rows()
    fresh = new_rows(measured, batch.source_topic, view.source_offsets)
    counts = score_counts(measured.where(fresh), service=view.service, at_ms=at_ms)
    rows: list[Row] = list(counts)
    if rows:
        value = msgspec.json.encode(view.source_offsets)
        rows.append(Item(view.service, ItemKind.OFFSETS, "", at_ms, value))
    return _change(view, set(), rows)


def _take_alert(view: ServiceView, alert: AlertEvent) -> Change:
    view.alerts.pop(alert.key, None)
    view.alerts[alert.key] = alert
    rows: list[Row] = [_item(view, ItemKind.ALERT, alert.key, alert.at_ms, alert)]
    over = [k for k, a in view.alerts.items() if a.status is AlertStatus.RESOLVED]
    for key in over[:-RESOLVED_KEPT]:
        del view.alerts[key]
        rows.append(_gone(view, ItemKind.ALERT, key))
    return _change(view, {Section.ALERTS, Section.SERVICE}, rows)


def _take_decision(view: ServiceView, event: ControlEvent) -> Change:
    if event.id in view.decisions:
        return _change(view, set(), [])
    view.decisions[event.id] = event
    for old in list(view.decisions)[:-DECISIONS_KEPT]:
        # Its item stays, for the history.
        del view.decisions[old]
    rows: list[Row] = [_item(view, ItemKind.DECISION, event.id, event.at_ms, event)]
    sections = {Section.DECISIONS, Section.SERVICE}
    if isinstance(event, DriftDetected | DriftCleared):
        key = f"{event.arm}/{event.feature}"
        if isinstance(event, DriftDetected):
            view.drift[key] = event
            rows.append(_item(view, ItemKind.DRIFT, key, event.at_ms, event))
        else:
            view.drift.pop(key, None)
            rows.append(_gone(view, ItemKind.DRIFT, key))
    return _change(view, sections, rows)


def _item(
    view: ServiceView, kind: ItemKind, key: str, at_ms: int, event: msgspec.Struct
) -> Item:  # fmt: skip
    return Item(view.service, kind, key, at_ms, cloudevents.encode_json(event))


def _gone(view: ServiceView, kind: ItemKind, key: str) -> Item:
    return Item(view.service, kind, key, 0, None)


def _change(view: ServiceView, sections: set[Section], rows: list[Row]) -> Change:
    return Change(view.service, frozenset(sections), rows)


def _put(name: str, type_: Any) -> Callable[[ServiceView, str, bytes], None]:
    def put(view: ServiceView, key: str, value: bytes) -> None:
        getattr(view, name)[key] = cloudevents.decode_json(value, type_)

    return put


def _set(name: str, type_: Any) -> Callable[[ServiceView, str, bytes], None]:
    def put(view: ServiceView, _key: str, value: bytes) -> None:
        setattr(view, name, cloudevents.decode_json(value, type_))

    return put


_RESTORE: dict[ItemKind, Callable[[ServiceView, str, bytes], None]] = {
    ItemKind.ALERT: _put("alerts", AlertEvent),
    ItemKind.CASE: _put("cases", CuratedCase),
    ItemKind.DECISION: _put("decisions", cloudevents.CONTROL_EVENT),
    ItemKind.DRIFT: _put("drift", DriftDetected),
    ItemKind.JUDGED: _set("judged", GateStatus),
    ItemKind.OFFSETS: _set("source_offsets", dict[str, int]),
    ItemKind.ROLLOUT: _set("rollout", RolloutState),
    ItemKind.STATUS: _set("status", GateStatus),
    ItemKind.WINDOW: _put("windows", WindowMetrics),
    ItemKind.WORKER: _put("workers", WorkerSeen),
}
