"""How many measured prompts a second one core folds, with every gate of the default policy on.

    python -m benchmarks.fold --json
    python -m benchmarks.fold --rows 1000000 --repeats 5

One service at 50 %, records as an analyzer writes them, decoded and folded in this process: dedupe,
window totals, evidence of all gates, timers, a decision at every record, and the windows and gate
reports of each pane of log time. Log time runs so fast that the log would be written at 500,000
rows a second. Rates are rows a second of CPU time, the median over the repeats, with the least and
the most beside it; `status_ms` is what the reports of one pane take, and `state_bytes` the
checkpoint after all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median
from typing import Any

import msgspec
import numpy as np

from benchmarks.machine import describe_machine
from schemas.log import (
    COLUMNS,
    Command,
    CommandRecord,
    MeasurementBatch,
    OperatorCommand,
    RowFlag,
    encode_log_record,
)
from schemas.policy import default_policy
from schemas.rollout import Phase
from streams.fold import LogEntry, step
from streams.state import ServiceState, new_state, snapshot

__all__ = ["main"]

SERVICE = "bench"
_T0_MS = 1_800_000_000_000
_ROWS_PER_MS = 500
_BATCHES = 400
"""Different batches are made so many; then they come again at later offsets."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Rows a second through the fold.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rows", type=int, default=400_000, help="rows of a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "rows": asked.rows,
        "repeats": asked.repeats,
    }
    for size in (100, 300):
        rates, state = [], None
        entries = log(asked.rows, size)
        for number in range(asked.repeats):
            print(f"{size} rows a record: {number + 1}/{asked.repeats}", file=sys.stderr)
            state = rolling()
            began = time.process_time()
            for entry in entries:
                step(state, entry)
            rates.append(asked.rows / (time.process_time() - began))
            assert state.rollout.phase is Phase.PROGRESSING, state.rollout.reason
        assert state is not None
        found[f"rows_per_s_{size}"] = round(median(rates))
        found[f"rows_per_s_{size}_range"] = [round(min(rates)), round(max(rates))]
        found["state_bytes"] = len(snapshot(state))
        found["status_ms"] = round(status_ms(state), 2)
    print(json.dumps(found, indent=None if asked.json else 2))


def rolling() -> ServiceState:
    """A service with a rollout at 50 % that lasts for the whole of the log."""
    state = new_state(SERVICE)
    standard = default_policy()
    stages = [msgspec.structs.replace(s, min_seconds=80_000.0) for s in standard.stages]
    policy = msgspec.structs.replace(standard, stages=stages)
    commands = [(Command.START, policy), (Command.PROMOTE, None), (Command.PROMOTE, None)]
    for offset, (kind, sent) in enumerate(commands):
        asked = OperatorCommand(
            id=f"c{offset}", service=SERVICE, command=kind, actor="bench", policy=sent
        )
        record = encode_log_record(CommandRecord(service=SERVICE, command=asked))
        # So early that no gate is warming up when the rows come.
        step(state, LogEntry(0, offset, _T0_MS - 400_000, record))
    return state


def log(rows: int, size: int) -> list[LogEntry]:
    """Records of so many rows each, after the commands."""
    state = rolling()
    rng = np.random.default_rng(7)
    made = [batch_columns(rng, size) for _ in range(_BATCHES)]
    entries = []
    for number in range(rows // size):
        columns = made[number % _BATCHES]
        columns["offset"] = np.arange(number * size, (number + 1) * size, dtype="<i8")
        batch = MeasurementBatch(
            service=SERVICE,
            worker_id="w1",
            incarnation="w1/1",
            revision=state.rollout.revision,
            rollout_id=state.rollout.rollout_id,
            source_topic="prompts",
            segments=["rest"],
            **{name: columns[name].tobytes() for name in COLUMNS},
        )
        at_ms = _T0_MS + number * size // _ROWS_PER_MS
        entries.append(LogEntry(0, state.last_offset + 1 + number, at_ms, encode_log_record(batch)))
    return entries


def batch_columns(rng: np.random.Generator, size: int) -> dict[str, Any]:
    """A batch that every gate is content with."""
    candidate = rng.random(size) < 0.5
    semantic = RowFlag.CANDIDATE | RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP
    flags = np.where(candidate, semantic, 0)
    flags |= np.where(candidate & (rng.random(size) < 0.8), RowFlag.CACHE_HIT, 0)
    flags |= np.where(rng.random(size) < 0.0002, RowFlag.SYSTEM_ERROR, 0)
    rules = rng.beta(12, 8, size)
    score = np.clip(rules * np.where(candidate, 1.05, 1.0) + rng.normal(0, 0.03, size), 0, 1)
    columns = {
        "flags": flags,
        "processing_seconds": rng.lognormal(-2.3, 0.5, size),
        "embed_seconds": rng.lognormal(-3.0, 0.5, size),
        "rules_score": rules,
        "score": score,
        "coherence": rng.beta(16, 4, size),
        "relevance": rng.beta(14, 6, size),
        "centroid_distance": rng.random(size),
        "prompt_chars": rng.integers(20, 400, size),
        "bucket": np.where(candidate, 0, 5000) + rng.integers(0, 5000, size),
    }
    rest = {"partition": 0, "segment": 0, "offset": 0}
    return {
        name: np.broadcast_to(np.asarray((columns | rest)[name]), (size,)).astype(dtype)
        for name, dtype in COLUMNS.items()
    }


def status_ms(state: ServiceState) -> float:
    """CPU time of the reports of all gates, with bounds, in ms."""
    assert state.watch is not None
    began = time.process_time()
    for _ in range(10):
        for place in range(len(state.watch.gates)):
            state.watch.report(place)
    return (time.process_time() - began) * 100.0


if __name__ == "__main__":
    main()
