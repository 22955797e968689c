"""Takes control events, windows and gate states into runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from schemas import cloudevents
from schemas.control import ControlEvent, GateStatus, WindowMetrics
from schemas.errors import DecodeError
from schemas.topics import Topic, Topics
from streams.errors import SinkRefusedError
from streams.tracking.drafts import Points, RunOperation
from streams.tracking.points import StatusFilter, status_points, window_points
from streams.tracking.records import Record, position_of
from streams.tracking.runs import run_operations
from streams.tracking.take_traces import Calls
from streams.tracking.telemetry import TrackerTelemetry

__all__ = ["RunSink", "RunTaker"]

log = logging.getLogger("driftgate.tracker")

MAX_VALUES = 1_000
"""Of metrics a call, MLflow's own limit."""
_STATUS = cloudevents.EVENT_TYPES[GateStatus]


class RunSink(Protocol):
    """See :class:`streams.tracking.mlflow_sink.MlflowSink`."""

    def apply(self, operations: Sequence[RunOperation]) -> None:
        """In this order."""

    def log_points(self, points: Sequence[Points]) -> None:
        """In as few calls as can be."""


class RunTaker:
    """Brings decisions and metrics into runs.

    Args:
        topics: full names.
        sink: that is written to.
        calls: how.
        telemetry: is told of everything.
    """

    def __init__(
        self, topics: Topics, sink: RunSink, calls: Calls, telemetry: TrackerTelemetry
    ) -> None:
        self._control = topics.name(Topic.CONTROL)
        self._sink = sink
        self._calls = calls
        self._telemetry = telemetry
        self._filter = StatusFilter()

    async def take(self, records: Sequence[Record]) -> None:
        """Take records; when it returns, MLflow has them."""
        points: list[Points] = []
        for record in records:
            control = record.topic == self._control
            try:
                if control:
                    await self._decide(record)
                else:
                    points += self._measure(record)
            except DecodeError as error:
                self._telemetry.undecodable[Topic.CONTROL if control else Topic.METRICS] += 1
                log.warning(
                    "%s cannot be read and is passed over: %s",
                    position_of(record).event_id(), error,
                )  # fmt: skip
        for group in _groups(points):
            await self._log(group)

    async def _decide(self, record: Record) -> None:
        event: ControlEvent = cloudevents.decode_json(record.value, cloudevents.CONTROL_EVENT)
        operations = run_operations(event)
        kind = str(event.__struct_config__.tag)
        try:
            await self._calls.call(
                f"{kind} of {event.service}", lambda: self._sink.apply(operations)
            )
        except SinkRefusedError as error:
            self._refused(kind, position_of(record).event_id(), error)
        else:
            self._telemetry.events += 1

    def _measure(self, record: Record) -> list[Points]:
        kind = cloudevents.attributes(record.headers).get("type")
        if kind == _STATUS:
            status = cloudevents.decode_json(record.value, GateStatus)
            return [status_points(status)] if self._filter.passes(status) else []
        points = window_points(cloudevents.decode_json(record.value, WindowMetrics))
        return [points] if points else []

    async def _log(self, points: Sequence[Points]) -> None:
        run = points[0].run
        try:
            await self._calls.call(
                f"metrics of {run.service}", lambda: self._sink.log_points(points)
            )
        except SinkRefusedError as error:
            if len(points) > 1:
                for each in points:
                    await self._log([each])
                return
            self._refused("metrics", f"{run.key} at {points[0].at_ms}", error)
        else:
            self._telemetry.points += sum(len(each.values) for each in points)

    def _refused(self, kind: str, what: str, error: SinkRefusedError) -> None:
        self._telemetry.refused[kind] += 1
        log.error("MLflow does not take the %s of %s, it is passed over: %s", kind, what, error)


def _groups(points: Sequence[Points]) -> list[list[Points]]:
    """Points of a call: together at most so many values."""
    groups: list[list[Points]] = []
    room = 0
    for each in points:
        if len(each.values) > room:
            groups.append([])
            room = MAX_VALUES
        groups[-1].append(each)
        room -= len(each.values)
    return groups
