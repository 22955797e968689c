"""The measured prompts of `benchmarks.monitor`, as each system is fed them.

The same rows, made once a load: in batches of columns for the monitor's log, one JSON record a
prompt for others. Log time is the records' own time stamp, and all loads last equally long in it:
a slower system is given fewer rows a second, not less time, so that all close the same windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.fold import SERVICE, batch_columns
from benchmarks.monitor_results import ARMS, HOP_MS, WINDOW_MS, Rows
from schemas.log import (
    COLUMNS,
    Command,
    CommandRecord,
    MeasurementBatch,
    OperatorCommand,
    RowFlag,
    Tick,
    encode_log_record,
)
from schemas.policy import Windows, default_policy
from streams.fold import LogEntry, step
from streams.state import new_state

__all__ = [
    "SPAN_MS",
    "Load",
    "Message",
    "begin_ms",
    "json_records",
    "log_records",
    "make_load",
    "rows",
]

SPAN_MS = 20_000
"""Log time of a load: 29 windows of either arm. More is more rows for the fast systems, or fewer a
second for the slow ones."""
_WARMUP_MS = 400_000
"""The rollout starts so long before the rows that no gate is warming up when they come."""
_AFTER_MS = 60_000
"""From the rows to what closes their windows; longer than a window."""
_STAGE_SECONDS = 80_000.0
"""No stage is long enough to advance, nor so long that the rollout pauses."""
_DIFFERENT = 400
"""Different batches are made so many; then they come again."""


class Message(NamedTuple):
    """A record to write."""

    key: bytes
    value: bytes
    at_ms: int


class Load(NamedTuple):
    """Rows in batches, in the order of their log time."""

    begin_ms: int
    batches: list[dict[str, Any]]
    """The different ones; they are taken in turn."""
    size: int
    """Rows a batch."""
    count: int
    """Batches."""

    @property
    def rows(self) -> int:
        """Rows of all batches."""
        return self.count * self.size

    def at_ms(self, number: int) -> int:
        """Log time of a batch."""
        return self.begin_ms + number * SPAN_MS // self.count

    def columns(self, number: int) -> dict[str, Any]:
        """Columns of a batch."""
        return self.batches[number % len(self.batches)]


def begin_ms(now_ms: int) -> int:
    """When loads begin that are over by now: what the monitor writes by itself comes later."""
    return (now_ms - SPAN_MS - 3 * _AFTER_MS) // WINDOW_MS * WINDOW_MS


def make_load(wanted: int, size: int, begin_ms: int) -> Load:
    """A load of about so many rows.

    Args:
        wanted: rows; cut to whole batches, of which there is at least one in each hop.
        size: rows a batch, at least 1.
        begin_ms: log time of the first.
    """
    rng = np.random.default_rng(7)
    count = max(wanted // size, SPAN_MS // HOP_MS)
    batches = [batch_columns(rng, size) for _ in range(min(_DIFFERENT, count))]
    return Load(begin_ms, batches, size, count)


def rows(load: Load) -> Rows:
    """What is measured of a load."""
    taken = np.arange(load.count) % len(load.batches)
    flags = np.stack([batch["flags"] for batch in load.batches])[taken].ravel()
    seconds = np.stack([batch["processing_seconds"] for batch in load.batches])[taken].ravel()
    at_ms = np.array([load.at_ms(number) for number in range(load.count)])
    return Rows(
        at_ms=np.repeat(at_ms, load.size),
        arm=(flags & RowFlag.CANDIDATE).astype(np.intp),
        seconds=seconds.astype(np.float64),
        error=(flags & RowFlag.SYSTEM_ERROR) != 0,
    )


def json_records(load: Load) -> Iterator[Message]:
    """One JSON record a prompt, keyed by its arm; at last some that close all windows."""
    encode = msgspec.json.Encoder().encode
    for number in range(load.count):
        columns = load.columns(number)
        at_ms = load.at_ms(number)
        arms = (columns["flags"] & RowFlag.CANDIDATE).tolist()
        errors = ((columns["flags"] & RowFlag.SYSTEM_ERROR) != 0).tolist()
        seconds = columns["processing_seconds"].tolist()
        for place in range(load.size):
            row = {
                "prompt_id": f"prompts/0/{number * load.size + place}",
                "arm": ARMS[arms[place]],
                "processing_seconds": seconds[place],
                "error": errors[place],
            }
            yield Message(row["arm"].encode(), encode(row), at_ms)
    for at_ms in _closing_ms(load):
        for arm in ARMS:
            last = {"prompt_id": "last", "arm": arm, "processing_seconds": 1.0, "error": False}
            yield Message(arm.encode(), encode(last), at_ms)


def log_records(load: Load, *, gates: bool = True) -> Iterator[Message]:
    """The log: a rollout goes to 50 %, the rows come, and ticks close all windows.

    Args:
        load: the rows.
        gates: all that are on by default, or a single one, as a policy must have.
    """
    state = new_state(SERVICE)
    start_ms = load.begin_ms - _WARMUP_MS
    for offset, command in enumerate(_commands(gates=gates)):
        value = encode_log_record(CommandRecord(service=SERVICE, command=command))
        step(state, LogEntry(0, offset, start_ms, value))
        yield Message(SERVICE.encode(), value, start_ms)
    for number in range(load.count):
        first = number * load.size
        columns = load.columns(number) | {"offset": np.arange(first, first + load.size)}
        batch = MeasurementBatch(
            service=SERVICE,
            worker_id="w1",
            incarnation="w1/1",
            revision=state.rollout.revision,
            rollout_id=state.rollout.rollout_id,
            source_topic="prompts",
            segments=["rest"],
            **{name: columns[name].astype(kind).tobytes() for name, kind in COLUMNS.items()},
        )
        yield Message(SERVICE.encode(), encode_log_record(batch), load.at_ms(number))
    tick = encode_log_record(Tick(service=SERVICE))
    for at_ms in _closing_ms(load):
        yield Message(SERVICE.encode(), tick, at_ms)


def _closing_ms(load: Load) -> tuple[int, int]:
    """So much later than the rows that every window of them has closed.

    Twice: a window that is made of panes closes with the next pane.
    """
    end_ms = load.begin_ms + SPAN_MS
    return end_ms + _AFTER_MS, end_ms + 2 * _AFTER_MS


def _commands(*, gates: bool) -> list[OperatorCommand]:
    """To 50 %, with the windows of this benchmark."""
    standard = default_policy()
    stages = [msgspec.structs.replace(s, min_seconds=_STAGE_SECONDS) for s in standard.stages]
    windows = Windows(
        pane_seconds=HOP_MS / 1000, hop_seconds=HOP_MS / 1000, window_seconds=WINDOW_MS / 1000
    )
    # What drift detection costs is measured by benchmarks.fold: none of the peers has any.
    drift = msgspec.structs.replace(standard.drift, enabled=False)
    policy = msgspec.structs.replace(
        standard,
        stages=stages,
        windows=windows,
        drift=drift,
        gates=standard.gates if gates else standard.gates[:1],
    )
    wanted = [(Command.START, policy), (Command.PROMOTE, None), (Command.PROMOTE, None)]
    return [
        OperatorCommand(id=f"c{n}", service=SERVICE, command=kind, actor="bench", policy=sent)
        for n, (kind, sent) in enumerate(wanted)
    ]
