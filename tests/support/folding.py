"""Builds logs and tells the story of a fold, record by record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from schemas.cloudevents import encode_json
from schemas.drift import DriftRules
from schemas.log import (
    COLUMNS,
    Command,
    CommandRecord,
    Heartbeat,
    LogRecord,
    MeasurementBatch,
    ModelState,
    OperatorCommand,
    RowFlag,
    Rows,
    Tick,
    encode_log_record,
)
from schemas.policy import Gate, Policy, Stage, Windows, default_policy
from schemas.rollout import NO_BUCKET
from streams.fold import LogEntry, step
from streams.outputs import Output
from streams.replay import KeyedEntry
from streams.state import ServiceState, new_state

__all__ = [
    "GOOD_ROW",
    "SERVICE",
    "T0_MS",
    "Story",
    "gate",
    "heartbeat",
    "measurement",
    "of_type",
    "operator",
    "policy",
    "rows_of",
    "said",
]

T = TypeVar("T")

SERVICE = "shop"
T0_MS = 1_800_000_000_000
"""When the logs begin: a whole minute, so that windows are easy to count."""

GOOD_ROW: dict[str, Any] = {
    "flags": RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT,
    "segment": 0,
    "processing_seconds": 0.1,
    "embed_seconds": 0.05,
    "rules_score": 0.5,
    "score": 0.6,
    "coherence": 0.8,
    "relevance": 0.8,
    "centroid_distance": 0.5,
    "prompt_chars": 80,
    "bucket": NO_BUCKET,
}
"""A prompt that every gate of the default policy is content with."""


def rows_of(offsets: Iterable[int], *, partition: int = 0, **columns: Any) -> dict[str, Any]:
    """Columns of good rows; a column that is given is one value for all, or one a row."""
    numbers = list(offsets)
    values = GOOD_ROW | {"partition": partition, "offset": numbers} | columns
    return {
        name: np.broadcast_to(np.asarray(values[name]), (len(numbers),)).astype(dtype)
        for name, dtype in COLUMNS.items()
    }


def as_rows(columns: dict[str, Any]) -> Rows:
    """Columns as the fold sees them."""
    return Rows(**columns)


def measurement(
    columns: dict[str, Any],
    *,
    service: str = SERVICE,
    revision: int = 0,
    rollout_id: str | None = None,
    worker: str = "w1",
    segments: Sequence[str] = ("rest",),
    topic: str = "prompts",
) -> MeasurementBatch:
    """A batch of columns made by :func:`rows_of`."""
    return MeasurementBatch(
        service=service,
        worker_id=worker,
        incarnation=f"{worker}/1",
        revision=revision,
        rollout_id=rollout_id,
        source_topic=topic,
        segments=list(segments),
        **{name: column.tobytes() for name, column in columns.items()},
    )


def heartbeat(
    worker: str = "w1",
    revision: int = 0,
    *,
    service: str = SERVICE,
    incarnation: str | None = None,
    interval_ms: int = 1000,
    leaving: bool = False,
    model: ModelState = ModelState.READY,
    rss_mb: float = 300.0,
    lag_messages: int = 0,
) -> Heartbeat:
    """A sign of life of a worker that has applied a revision."""
    return Heartbeat(
        service=service,
        worker_id=worker,
        incarnation=incarnation or f"{worker}/1",
        version="1",
        applied_revision=revision,
        interval_ms=interval_ms,
        model=model,
        encoder="test",
        rss_bytes=round(rss_mb * 1e6),
        cpu_seconds=0.0,
        lag_messages=lag_messages,
        cache_entries=0,
        cache_hits=0,
        cache_misses=0,
        prompts=0,
        leaving=leaving,
    )


def operator(
    command: Command, id: str, *, service: str = SERVICE, **details: Any
) -> OperatorCommand:
    """An operator's command."""
    return OperatorCommand(id=id, service=service, command=command, actor="ann", **details)


def gate(name: str, /, **changes: Any) -> Gate:
    """A gate of the default policy, changed."""
    found = next(g for g in default_policy().gates if g.name == name)
    return msgspec.structs.replace(found, **changes)


def policy(
    *gates: Gate,
    percents: Sequence[float] = (0, 25, 50, 100),
    min_seconds: float = 60.0,
    max_seconds: float = 3600.0,
    **changes: Any,
) -> Policy:
    """A policy that `contradictions` is content with.

    Without gates, those of the default one that are about prompts: no heartbeat is needed. Drift is
    not watched unless asked for: stories about gates are told in numbers that drift.
    """
    standard = default_policy()
    gates = gates or tuple(g for g in standard.gates if not g.metric.is_health)
    stages = [
        Stage(
            percent=float(percent),
            min_seconds=float(min_seconds),
            max_seconds=float(max_seconds),
            shadow_percent=0.0 if percent else 25.0,
        )
        for percent in percents
    ]
    changes = {
        "windows": Windows(),
        "drift": DriftRules(enabled=False),
        "stages": stages,
        "gates": list(gates),
        **changes,
    }
    return msgspec.structs.replace(standard, **changes)


class Story:
    """A log that grows, and the fold that follows it.

    Each method appends one record at the present time and returns what the fold says to it.
    """

    def __init__(self, service: str = SERVICE, *, partition: int = 0, now_ms: int = T0_MS) -> None:
        self.partition = partition
        self.now_ms = now_ms
        self.entries: list[LogEntry] = []
        self.state: ServiceState = new_state(service)
        self.outputs: list[Output] = []
        self._source_offset = 0
        self._commands = 0

    @property
    def keyed(self) -> list[KeyedEntry]:
        """The log so far, as a broker would give it."""
        return [KeyedEntry(self.state.service.encode(), entry) for entry in self.entries]

    def after(self, seconds: float) -> Story:
        """Let time pass; a negative time is a clock that goes back."""
        self.now_ms += round(seconds * 1000)
        return self

    def silence(self, seconds: int) -> Story:
        """Let time pass, with the ticks that its owner writes into an idle log."""
        for _ in range(seconds):
            self.after(1).tick()
        return self

    def raw(self, value: bytes | None) -> list[Output]:
        """Any bytes."""
        entry = LogEntry(self.partition, len(self.entries), self.now_ms, value)
        self.entries.append(entry)
        found = step(self.state, entry)
        self.outputs += found
        return found

    def record(self, record: LogRecord) -> list[Output]:
        """Any record."""
        return self.raw(encode_log_record(record))

    def tick(self) -> list[Output]:
        """Nothing but the time."""
        return self.record(Tick(service=self.state.service))

    def beat(self, worker: str = "w1", revision: int | None = None, **details: Any) -> list[Output]:
        """A heartbeat; without a revision, of a worker that has applied the present one."""
        applied = self.state.rollout.revision if revision is None else revision
        return self.record(heartbeat(worker, applied, service=self.state.service, **details))

    def command(self, command: Command, id: str | None = None, **details: Any) -> list[Output]:
        """A command with an id of its own."""
        self._commands += 1
        asked = operator(command, id or f"c{self._commands}", service=self.state.service, **details)
        return self.record(CommandRecord(service=self.state.service, command=asked))

    def start(self, with_policy: Policy | None = None, **details: Any) -> list[Output]:
        """Start a rollout."""
        return self.command(Command.START, policy=with_policy or policy(), **details)

    def measure(
        self, control: int = 0, candidate: int = 0, *, revision: int | None = None, **columns: Any
    ) -> list[Output]:
        """Good rows of both arms, with the columns of the candidate's rows changed.

        Scores spread by 0.01 around what is given, since no two prompts are alike: a comparison of
        means says nothing about numbers without any variance.
        """
        first = self._source_offset
        self._source_offset += control + candidate
        arms = (
            rows_of(range(first, first + control)),
            rows_of(range(first + control, self._source_offset), **columns),
        )
        arms[1]["flags"] |= np.uint16(RowFlag.CANDIDATE)
        for arm in arms:
            arm["score"] += np.where(np.arange(len(arm["score"])) % 2, 0.01, -0.01).astype("<f4")
        joined = {name: np.concatenate([arm[name] for arm in arms]) for name in COLUMNS}
        rollout = self.state.rollout
        return self.record(
            measurement(
                joined,
                service=self.state.service,
                revision=rollout.revision if revision is None else revision,
                rollout_id=rollout.rollout_id,
            )
        )

    def serve(self, rows: int, **columns: Any) -> list[Output]:
        """Rows of users that are in no candidate arm, with the columns given changed."""
        first = self._source_offset
        self._source_offset += rows
        made = rows_of(range(first, first + rows), **columns)
        made["score"] += np.where(np.arange(rows) % 2, 0.01, -0.01).astype("<f4")
        rollout = self.state.rollout
        return self.record(
            measurement(
                made,
                service=self.state.service,
                revision=rollout.revision,
                rollout_id=rollout.rollout_id,
            )
        )

    def two_arms(
        self, control: int, candidate: int, *, candidate_flags: Any, **columns: Any
    ) -> list[Output]:
        """Rows of both arms, control first; columns are of all rows."""
        first = self._source_offset
        self._source_offset += control + candidate
        made = rows_of(range(first, self._source_offset), **columns)
        made["flags"][:control] = 0
        made["flags"][control:] = np.asarray(candidate_flags) | RowFlag.CANDIDATE
        rollout = self.state.rollout
        return self.record(
            measurement(
                made,
                service=self.state.service,
                revision=rollout.revision,
                rollout_id=rollout.rollout_id,
            )
        )

    def reach(self, stage: int, **columns: Any) -> Story:
        """Advance through healthy stages until one is reached."""
        for _ in range(100):
            if self.state.rollout.stage >= stage:
                return self
            seconds = self.state.policy.stages[self.state.rollout.stage].min_seconds
            self.after(seconds + 1).measure(400, 400, **columns)
        raise AssertionError(f"stuck: {self.state.rollout}")


def of_type(outputs: Iterable[Output], kind: type[T]) -> list[T]:
    """The events of one type."""
    return [o.event for o in outputs if isinstance(o.event, kind)]


def said(outputs: Iterable[Output]) -> list[tuple[str, str, bytes]]:
    """What outputs look like on Kafka: topic, id and the JSON to the byte."""
    return [(o.topic, o.id, encode_json(o.event)) for o in outputs]
