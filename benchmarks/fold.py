"""How many measured prompts a second one core folds, with every gate of the default policy on.

    python -m benchmarks.fold --json
    python -m benchmarks.fold --rows 1000000 --repeats 5

One service at 50 %, records as an analyzer writes them, decoded and folded in this process: dedupe,
window totals, evidence of all gates, timers, a decision at every record, and the windows and gate
reports of each pane of log time. `..._drift` is with every drift detector on besides, and the sums
of the embeddings of both arms in each record; `drift_us_per_prompt_...` is what that adds. Log time
runs so fast that the log would be written at 500,000 rows a second. Rates are rows a second of CPU
time, the median over the repeats, with the least and the most beside it; `status_ms` is what the
reports of one pane take, and `state_bytes` the checkpoint after all rows.
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

from analyzer.fourier import FourierMap, fourier_sum
from analyzer.model import DIMENSION
from benchmarks.machine import describe_machine
from schemas.drift import FourierSum
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
_MAP = FourierMap(DIMENSION)
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
        entries = {drift: log(asked.rows, size, drift=drift) for drift in (False, True)}
        rates: dict[bool, list[float]] = {False: [], True: []}
        state = rolling()
        for number in range(asked.repeats):
            print(f"{size} rows a record: {number + 1}/{asked.repeats}", file=sys.stderr)
            # In turns, so that what else the machine does slows both.
            for drift, several in rates.items():
                state = rolling(drift=drift)
                began = time.process_time()
                for entry in entries[drift]:
                    step(state, entry)
                several.append(asked.rows / (time.process_time() - began))
                assert state.rollout.phase is Phase.PROGRESSING, state.rollout.reason
        for drift, several in rates.items():
            key = f"rows_per_s_{size}{'_drift' if drift else ''}"
            found[key] = round(median(several))
            found[f"{key}_range"] = [round(min(several)), round(max(several))]
        added = [1e6 / on - 1e6 / off for off, on in zip(*rates.values(), strict=True)]
        found[f"drift_us_per_prompt_{size}"] = round(median(added), 2)
        found["state_bytes"] = len(snapshot(state))
        found["status_ms"] = round(status_ms(state), 2)
    print(json.dumps(found, indent=None if asked.json else 2))


def rolling(*, drift: bool = False) -> ServiceState:
    """A service with a rollout at 50 % that lasts for the whole of the log.

    Args:
        drift: whether it is watched for drift.
    """
    state = new_state(SERVICE)
    standard = default_policy()
    stages = [msgspec.structs.replace(s, min_seconds=80_000.0) for s in standard.stages]
    rules = msgspec.structs.replace(standard.drift, enabled=drift)
    policy = msgspec.structs.replace(standard, stages=stages, drift=rules)
    commands = [(Command.START, policy), (Command.PROMOTE, None), (Command.PROMOTE, None)]
    for offset, (kind, sent) in enumerate(commands):
        asked = OperatorCommand(
            id=f"c{offset}", service=SERVICE, command=kind, actor="bench", policy=sent
        )
        record = encode_log_record(CommandRecord(service=SERVICE, command=asked))
        # So early that no gate is warming up when the rows come.
        step(state, LogEntry(0, offset, _T0_MS - 400_000, record))
    return state


def log(rows: int, size: int, *, drift: bool) -> list[LogEntry]:
    """Records of so many rows each, after the commands; for drift with sums of embeddings."""
    state = rolling()
    rng = np.random.default_rng(7)
    made = [batch_columns(rng, size) for _ in range(_BATCHES)]
    summed = [batch_sums(rng, columns["flags"]) for columns in made] if drift else []
    entries = []
    for number in range(rows // size):
        columns = made[number % _BATCHES]
        embeddings = summed[number % _BATCHES] if drift else {}
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
            **embeddings,
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


def batch_sums(rng: np.random.Generator, flags: Any) -> dict[str, FourierSum | None]:
    """Sums of both arms, as if the control had a semantic half too: the most that there is."""
    candidate = (flags & RowFlag.CANDIDATE) != 0
    vectors = rng.normal(0.05, 0.05, (len(flags), _MAP.dimension)).astype(np.float32)
    features = _MAP.features(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return {
        "control_embeddings": fourier_sum("0" * 16, features[~candidate]),
        "candidate_embeddings": fourier_sum("0" * 16, features[candidate]),
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
