"""What the page asks for a time range: series, markers, rollouts, and how reliable it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import numpy as np

from schemas import cloudevents
from schemas.control import (
    ControlEvent,
    DriftCleared,
    DriftDetected,
    RollbackConfirmed,
    RolloutRolledBack,
)
from schemas.errors import DecodeError
from streams.console.rollouts import rollout_lines
from streams.console.rows import ItemKind
from streams.console.views import decision_view

__all__ = ["Range", "Rows", "history"]

POINTS = 240
"""Of a chart: about three pixels each on a wide screen."""
SPARK_POINTS = 60
COLUMNS = 72
"""Of the heat map."""
DECISIONS = 200
AVAILABILITY = 0.999
"""The service level that failures are held against (M68)."""


class Rows(Protocol):
    """Reads rows by SQL with named parameters; `streams.console.store.Store` does."""

    def query(self, sql: str, parameters: dict[str, object]) -> Sequence[Any]:
        """Rows, whose columns are had by name."""


class Range(msgspec.Struct, frozen=True):
    """A stretch of time, ms since the epoch."""

    from_ms: int
    to_ms: int

    def step_ms(self, points: int) -> int:
        """How long one of so many points is, in whole seconds."""
        return max(1000, -(-(self.to_ms - self.from_ms) // points // 1000) * 1000)


def history(rows: Rows, service: str, over: Range) -> dict[str, Any]:
    """Everything about a service in a time range.

    Args:
        rows: the database.
        service: whose.
        over: the range; its length is the caller's to limit.
    """
    events = _events(rows, service, over)
    return {
        "from_ms": over.from_ms,
        "to_ms": over.to_ms,
        "windows": _windows(rows, service, over),
        "gates": _gates(rows, service, over),
        "workers": _workers(rows, service, over),
        "scores": _scores(rows, service, over),
        "decisions": [decision_view(event) for event in reversed(events)],
        "rollouts": rollout_lines(events),
        "markers": _markers(events),
        "reliability": _reliability(rows, service, over, events),
    }


def _parameters(service: str, over: Range, points: int) -> dict[str, object]:
    return {
        "service": service,
        "from": over.from_ms,
        "to": over.to_ms,
        "step": over.step_ms(points),
    }


def _events(rows: Rows, service: str, over: Range) -> list[ControlEvent]:
    found = rows.query(
        "SELECT value FROM (SELECT value, rowid AS place FROM items"
        " WHERE service = :service AND kind = :kind AND at_ms >= :from AND at_ms < :to"
        " ORDER BY rowid DESC LIMIT :limit) ORDER BY place",
        {**_parameters(service, over, 1), "kind": ItemKind.DECISION, "limit": DECISIONS},
    )
    events = []
    for row in found:
        # One of an older version of the contract is left out.
        with suppress(DecodeError):
            events.append(cloudevents.decode_json(row["value"], cloudevents.CONTROL_EVENT))
    return events


_WEIGHTED = {
    "processing_seconds_mean": "prompts",
    "processing_seconds_p50": "prompts",
    "rules_score_mean": "prompts",
    "score_mean": "prompts",
    "coherence_mean": "semantic_prompts",
    "relevance_mean": "semantic_prompts",
    "satisfaction_mean": "satisfaction_samples",
    "accuracy_mean": "accuracy_samples",
}
_SUMMED = (
    "prompts", "rejected", "system_errors", "semantic_prompts", "semantic_errors",
    "cache_lookups", "cache_hits", "satisfaction_samples", "accuracy_samples",
)  # fmt: skip
# The worst of a step is shown: a mean of quantiles is none, and would hide a spike.
_WORST = ("processing_seconds_p95", "processing_seconds_p99")


def _windows(rows: Rows, service: str, over: Range) -> dict[str, dict[str, list[Any]]]:
    """Series by arm. Windows overlap, so counts are given as parts of the windows' own time."""
    means = ", ".join(
        f"SUM({n} * {w}) / NULLIF(SUM(CASE WHEN {n} IS NOT NULL THEN {w} END), 0) AS {n}"
        for n, w in _WEIGHTED.items()
    )
    sums = ", ".join(f"SUM({name}) AS {name}" for name in _SUMMED)
    worst = ", ".join(f"MAX({name}) AS {name}" for name in _WORST)
    # S608: the names are our own.
    shown = f"MAX(end_ms) AS at_ms, SUM(end_ms - start_ms) AS ms, {sums}, {means}, {worst}"
    sql = (
        f"SELECT arm, {shown} FROM window_points"  # noqa: S608
        " WHERE service = :service AND end_ms >= :from AND end_ms < :to"
        " GROUP BY arm, (end_ms - :from) / :step ORDER BY arm, at_ms"
    )
    found = rows.query(sql, _parameters(service, over, POINTS))
    names = ("at_ms", "ms", *_SUMMED, *_WEIGHTED, *_WORST)
    return {
        arm: {name: [row[name] for row in found if row["arm"] == arm] for name in names}
        for arm in sorted({row["arm"] for row in found})
    }


def _gates(rows: Rows, service: str, over: Range) -> dict[str, dict[str, list[Any]]]:
    """The last report of each step, by gate."""
    names = ("at_ms", "verdict", "value", "lower", "upper", "limit_value")
    found = rows.query(
        # With MAX, SQLite takes the other columns from the row that has it.
        "SELECT gate, MAX(at_ms) AS at_ms, verdict, value, lower, upper, limit_value"
        " FROM gate_points WHERE service = :service AND at_ms >= :from AND at_ms < :to"
        " GROUP BY gate, (at_ms - :from) / :step ORDER BY gate, at_ms",
        _parameters(service, over, SPARK_POINTS),
    )
    return {
        gate: {name: [row[name] for row in found if row["gate"] == gate] for name in names}
        for gate in sorted({row["gate"] for row in found})
    }


def _workers(rows: Rows, service: str, over: Range) -> dict[str, dict[str, list[Any]]]:
    """Means of each step by worker; of what waits the most."""
    names = ("at_ms", "rss_bytes", "cpu_share", "prompts_per_s", "lag_messages")
    found = rows.query(
        "SELECT worker, MAX(at_ms) AS at_ms, AVG(rss_bytes) AS rss_bytes,"
        " AVG(cpu_share) AS cpu_share, AVG(prompts_per_s) AS prompts_per_s,"
        " MAX(lag_messages) AS lag_messages"
        " FROM worker_points WHERE service = :service AND at_ms >= :from AND at_ms < :to"
        " GROUP BY worker, (at_ms - :from) / :step ORDER BY worker, at_ms",
        _parameters(service, over, SPARK_POINTS),
    )
    return {
        worker: {name: [row[name] for row in found if row["worker"] == worker] for name in names}
        for worker in sorted({row["worker"] for row in found})
    }


def _scores(rows: Rows, service: str, over: Range) -> dict[str, Any]:
    """The distributions over time, and where the time goes; of both arms together."""
    step = max(60_000, over.step_ms(COLUMNS))
    found = rows.query(
        "SELECT (minute_ms - :from) / :step AS place, rows, processing_seconds, embed_seconds,"
        " relevance, coherence FROM score_counts"
        " WHERE service = :service AND minute_ms >= :from AND minute_ms < :to ORDER BY minute_ms",
        {**_parameters(service, over, COLUMNS), "step": step},
    )
    columns: dict[int, dict[str, Any]] = {}
    for row in found:
        column = columns.setdefault(
            row["place"],
            {"at_ms": over.from_ms + row["place"] * step, "rows": 0, "processing": 0.0,
             "embed": 0.0, "relevance": 0, "coherence": 0},
        )  # fmt: skip
        column["rows"] += row["rows"]
        column["processing"] += row["processing_seconds"]
        column["embed"] += row["embed_seconds"]
        for name in ("relevance", "coherence"):
            column[name] = column[name] + np.frombuffer(row[name], dtype="<u4").astype(np.int64)
    for column in columns.values():
        for name in ("relevance", "coherence"):
            column[name] = column[name].tolist()
    return {"step_ms": step, "columns": list(columns.values())}


def _markers(events: Sequence[ControlEvent]) -> list[dict[str, Any]]:
    """What is drawn across every chart: where drift begins and ends, and what was decided."""
    found = []
    for event in events:
        kind = str(event.__struct_config__.tag)
        if isinstance(event, DriftDetected | DriftCleared):
            text = f"{event.feature} {event.direction}" if kind == "drift.detected" else (
                f"{event.feature} as before")  # fmt: skip
        elif kind.startswith(("rollout.", "rollback.")):
            text = f"{event.share * 100:g} %"
        elif kind == "gate.breached":
            text = event.gate.gate  # type: ignore[union-attr]  # a GateBreached, by its tag
        else:
            continue
        found.append({"at_ms": event.at_ms, "kind": kind, "text": text})
    return found


def _reliability(
    rows: Rows, service: str, over: Range, events: Sequence[ControlEvent]
) -> dict[str, Any]:
    """Availability, failovers and recoveries in the range (M60, M68).

    Windows overlap. Those that begin at a whole multiple of their length do not, and leave nothing
    out, as windows begin at every hop and are whole hops long.
    """
    found = rows.query(
        "SELECT SUM(prompts) AS prompts, SUM(rejected) AS rejected,"
        " SUM(system_errors) AS system_errors, SUM(semantic_prompts) AS semantic_prompts,"
        " SUM(semantic_errors) AS semantic_errors FROM window_points"
        " WHERE service = :service AND end_ms >= :from AND end_ms < :to"
        " AND start_ms % (end_ms - start_ms) = 0",
        _parameters(service, over, 1),
    )
    counts = {name: found[0][name] or 0 for name in found[0].keys()}  # noqa: SIM118 - a sqlite3.Row
    wanted = counts["prompts"] + counts["system_errors"]
    attempts = counts["semantic_prompts"] + counts["semantic_errors"]
    recoveries = [e.confirmed_ms for e in events if isinstance(e, RollbackConfirmed)]
    return {
        **counts,
        "availability": 1 - counts["system_errors"] / wanted if wanted else None,
        "objective": AVAILABILITY,
        "fallback_share": counts["semantic_errors"] / attempts if attempts else None,
        "rollbacks": sum(isinstance(e, RolloutRolledBack) for e in events),
        "recovery_ms": max(recoveries) if recoveries else None,
    }
