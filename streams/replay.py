"""Folds a log from its beginning, without Kafka: what an undisturbed monitor would have said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from schemas.cloudevents import encode_json
from schemas.control import ControlEvent, GateReport, Verdict
from schemas.errors import DecodeError
from schemas.log import Command, CommandRecord, decode_log_record, encode_log_record
from schemas.policy import GateRole, Policy
from schemas.topics import Topic
from streams.fold import LogEntry, step
from streams.gates.health import HealthEvidence
from streams.outputs import Output
from streams.split import SAMPLE_RATIO, SplitWatch
from streams.state import ServiceState, new_state
from streams.watch import Watch

__all__ = [
    "Disagreement",
    "KeyedEntry",
    "Point",
    "Replay",
    "Trace",
    "disagreements",
    "fold_records",
    "gates_of",
    "under_policy",
]


class KeyedEntry(NamedTuple):
    """A record of the log with the key that says whose it is."""

    key: bytes | None
    entry: LogEntry


def fold_records(records: Iterable[KeyedEntry]) -> dict[str, tuple[ServiceState, list[Output]]]:
    """Fold records of one partition of the log, in its order.

    Args:
        records: from the beginning of the log; one without a key belongs to nobody and is passed
            over, one that was folded before changes nothing.

    Returns:
        For each service its state in the end, and all that was said on the way there.
    """
    services: dict[str, tuple[ServiceState, list[Output]]] = {}
    for key, entry in records:
        if not key:
            continue
        service = key.decode("utf-8", "replace")
        if service not in services:
            services[service] = (new_state(service), [])
        state, outputs = services[service]
        outputs += step(state, entry)
    return services


def under_policy(entries: Iterable[LogEntry], policy: Policy) -> Iterator[LogEntry]:
    """The same log, as if every rollout had been started with another policy."""
    for entry in entries:
        try:
            record = decode_log_record(entry.value)
        except DecodeError:
            yield entry
            continue
        if isinstance(record, CommandRecord) and record.command.command is Command.START:
            command = msgspec.structs.replace(record.command, policy=policy)
            changed = msgspec.structs.replace(record, command=command)
            entry = entry._replace(value=encode_log_record(changed))  # noqa: PLW2901
        yield entry


class Point(NamedTuple):
    """The evidence of a gate at a moment."""

    at_ms: int
    """Log time."""
    breach: float
    """Log e-value against "the objective holds"."""
    good: float
    """Log e-value against "the objective is broken"."""


class Trace(NamedTuple):
    """The evidence of every gate since its stage began, up to a decision."""

    alphas: dict[str, float]
    """What each gate may spend on ever calling this candidate a breach."""
    alpha_good: float
    points: dict[str, list[Point]]
    """By gate; one a pane of log time, and the one that was decided on."""


class Replay:
    """Folds the log of one service, and remembers what was decided.

    Args:
        service: whose log.
        trace: the id of a decision whose evidence is to be kept; None for none.
    """

    def __init__(self, service: str, *, trace: str | None = None) -> None:
        self.state = new_state(service)
        self.decisions: list[ControlEvent] = []
        self.trace: Trace | None = None
        """Of the decision asked for, once it was reached, if evidence was gathered then."""
        self._wanted = trace
        self._points: dict[str, list[Point]] = {}
        self._pane_ms = -1

    def take(self, entry: LogEntry) -> list[ControlEvent]:
        """Fold a record, and return what is decided on it."""
        # Evidence is changed in place: after a rollback this is what was decided on.
        watch, split = self.state.watch, self.state.split
        decided = [
            output.event
            for output in step(self.state, entry)
            if output.topic is Topic.CONTROL and isinstance(output.event, ControlEvent)
        ]
        self.decisions += decided
        if self._wanted is not None and self.trace is None:
            reached = any(e.id == self._wanted for e in decided)
            self._follow(watch, split, reached=reached)
        return decided

    def _follow(self, watch: Watch | None, split: SplitWatch | None, *, reached: bool) -> None:
        pane_ms = self.state.now_ms // self.state.policy.windows.pane_ms
        if watch is not None and (reached or pane_ms != self._pane_ms):
            self._pane_ms = pane_ms
            for gate, evidence in zip(watch.gates, watch.evidence, strict=True):
                if isinstance(evidence, HealthEvidence):
                    continue
                at = Point(self.state.now_ms, evidence.log_e_breach, evidence.log_e_good)
                self._points.setdefault(gate.name, []).append(at)
            if split is not None:
                at = Point(self.state.now_ms, split.evidence.log_e, 0.0)
                self._points.setdefault(SAMPLE_RATIO, []).append(at)
        if reached and watch is not None:
            alphas = dict.fromkeys(self._points, watch.alpha_breach)
            if split is not None:
                alphas[SAMPLE_RATIO] = split.alpha
            self.trace = Trace(alphas, watch.alpha_good, self._points)
        if self.state.watch is not watch:
            self._points = {}


class Disagreement(NamedTuple):
    """Where the control topic says something else than the log."""

    id: str
    what: str


def disagreements(
    decided: Iterable[ControlEvent], published: Iterable[tuple[str, bytes]]
) -> list[Disagreement]:
    """Compare what follows from the log with what stands on the control topic.

    Args:
        decided: by a replay.
        published: id and value of each record of the service; one that comes again with the same
            bytes is a repetition, which at-least-once delivery allows.

    Returns:
        Nothing when they agree to the byte and in their order.
    """
    found = []
    standing: dict[str, bytes] = {}
    for id, value in published:
        if standing.setdefault(id, value) != value:
            found.append(Disagreement(id, "stands on the control topic twice, differently"))
    expected = {event.id: encode_json(event) for event in decided}
    for id, value in expected.items():
        if id not in standing:
            found.append(Disagreement(id, "follows from the log, but is not on the control topic"))
        elif standing[id] != value:
            found.append(Disagreement(id, f"differs: {_first_difference(value, standing[id])}"))
    found += [
        Disagreement(id, "is on the control topic, but does not follow from the log")
        for id in standing
        if id not in expected
    ]
    if not found and list(expected) != list(standing):
        for ours, theirs in zip(expected, standing, strict=True):
            if ours != theirs:
                return [Disagreement(theirs, f"stands where {ours} belongs")]
    return found


def _first_difference(expected: bytes, found: bytes) -> str:
    try:
        ours, theirs = msgspec.json.decode(expected), msgspec.json.decode(found)
    except msgspec.DecodeError:
        return "what stands there is no JSON"
    if not isinstance(theirs, dict):
        return "what stands there is no event"
    for key in [*ours, *theirs]:
        if ours.get(key) != theirs.get(key):
            return f"{key} follows as {ours.get(key)!r}, and stands as {theirs.get(key)!r}"
    return "the same fields, in other bytes"


def gates_of(event: ControlEvent) -> list[GateReport]:
    """The gate reports that a decision carries, the one that it was made on first."""
    one = getattr(event, "gate", None)
    many: list[GateReport] = getattr(event, "gates", [])
    if one is not None:
        return [one]
    # An advance waits for what must be certified: that is what decided when.
    rank = {GateRole.PROMOTION: 0, GateRole.GUARDRAIL: 1, GateRole.SIGNAL: 2}
    return sorted(many, key=lambda g: (rank[g.role], g.verdict is not Verdict.SUCCESSFUL))
