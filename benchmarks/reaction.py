"""How long a rollback takes from the record that makes it decidable to the last worker's word.

    python -m benchmarks.reaction --json
    python -m benchmarks.reaction --repeats 5     # a try

On a real broker: two analyzers with the real model, the monitor, and a steady stream of prompts.
Again and again a rollout starts, goes to 50 %, and a fault makes green's relevance worthless until
the rollback is confirmed. Afterwards the log is folded again, undisturbed, and must say the same as
the control topic did. All times are the broker's append times:

- *decidable*: the measurement batch on which that fold reaches the rollback; where it counts
  several batches together, the first of them.
- `decide`: from there to `rollout.rolled_back` on the control topic.
- `confirmed`: from there to the heartbeat by which the last live worker acknowledges the revision.
- `regression`: from the fault to the rollback, for orientation: it depends on the traffic, and on
  how soon the file is read (0.2 s).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import describe_machine
from driftgate.broker import EmbeddedKafka
from driftgate.commanding import command, new_command
from driftgate.processes import Role
from driftgate.producing import produce, read_prompts, repeated
from driftgate.reading import TopicReader, decode_control, read_all
from driftgate.settings import kafka_settings
from driftgate.topics import ensure_topics
from schemas import cloudevents
from schemas.control import RollbackConfirmed, RolloutRolledBack
from schemas.log import Command, Heartbeat, ModelState, decode_log_record
from schemas.policy import parse_policy
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.fold import LogEntry
from streams.replay import Replay, disagreements

SERVICE = "bench"
WORKERS = ("analyzer-1", "analyzer-2")
FAULT = {"deployment": "semantic", "score_factor": 0.0}
"""Not an error rate: the circuit breaker would still be open in the next repetition."""
READY_TIMEOUT_S = 120.0
STEP_TIMEOUT_S = 30.0
HEALTHY_SECONDS = 0.5
"""Green serves half of the users for so long before the fault."""
UNREAD_SECONDS = 0.4
"""After a fault is taken away: workers read the file every 0.2 s."""
POLICY = """
blue: baseline
green: semantic
deployments:
  - {name: baseline, kind: rules}
  - {name: semantic, kind: semantic, semantic_weight: 0.3}
windows: {pane_seconds: 1, hop_seconds: 2, window_seconds: 10}
stages:
  - {percent: 50, min_seconds: 600, max_seconds: 3600}
  - {percent: 100, min_seconds: 600, max_seconds: 3600}
gates:
  - {name: latency-p95, metric: processing_seconds, statistic: p95, objective: "<= 5",
     role: guardrail, min_samples: 20}
  - {name: system-errors, metric: system_error, statistic: rate, objective: "<= 0.01",
     role: guardrail, min_samples: 20}
  - {name: relevance, metric: relevance, statistic: mean, objective: ">= 0.3",
     role: guardrail, min_samples: 20}
"""


class Reaction(NamedTuple):
    """One rollback, in ms."""

    decide: float
    confirmed: float
    regression: float


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="From a decidable breach to the last worker.")
    parser.add_argument("--repeats", type=int, default=50, help="rollbacks (default 50: 3 minutes)")
    parser.add_argument("--rate", type=float, default=100.0, help="prompts a second (default 100)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    with EmbeddedKafka() as broker, tempfile.TemporaryDirectory() as folder:
        kafka = kafka_settings({}, broker.bootstrap_servers)
        faults_at = asyncio.run(_run(kafka, options.repeats, options.rate, Path(folder)))
        found = asyncio.run(_reactions(kafka, faults_at))
    result = summary(found) | {"rate_per_s": options.rate, "machine": describe_machine()}
    sys.stdout.write(json.dumps(result, indent=None if options.json else 2) + "\n")


async def _run(kafka: KafkaSettings, repeats: int, rate: float, folder: Path) -> list[float]:
    """Roll back so often; when each fault was written, in ms since the epoch."""
    await ensure_topics(kafka)
    faults = folder / "faults.json"
    environ = {
        **os.environ,
        "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DRIFTGATE_SERVICE": SERVICE,
        "DRIFTGATE_FAULTS_FILE": str(faults),
    }
    with ExitStack() as stack:
        roles = [
            stack.enter_context(Role(name, arguments, environ, folder / f"{name}.log"))
            for name, arguments in (
                *((name, ["analyzer", "--worker-id", name]) for name in WORKERS),
                ("monitor", ["monitor", "--monitor-id", "bench"]),
            )
        ]
        say("two analyzers and the monitor start")
        await _ready(kafka, roles)
        prompts = repeated(_sample(), None)
        producing = asyncio.create_task(produce(kafka, prompts, rate_per_s=rate))
        try:
            faults_at = []
            for number in range(repeats):
                say(f"rollback {number + 1} of {repeats}")
                faults_at.append(await _roll_back(kafka, faults, roles))
        finally:
            producing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producing
    return faults_at


async def _ready(kafka: KafkaSettings, roles: list[Role]) -> None:
    async with TopicReader(kafka, Topic.LOG) as log:
        ready: set[str] = set()

        def take(record: Any) -> bool:
            beat = decode_log_record(record.value)
            if isinstance(beat, Heartbeat) and beat.model is ModelState.READY:
                ready.add(beat.worker_id)
            return len(ready) == len(WORKERS)

        await _await(log, roles, take, READY_TIMEOUT_S, "the workers did not get ready")


async def _roll_back(kafka: KafkaSettings, faults: Path, roles: list[Role]) -> float:
    policy = parse_policy(POLICY, file="benchmarks/reaction.py")
    async with TopicReader(kafka, Topic.CONTROL) as control:
        await control.from_end()
        start = new_command(Command.START, SERVICE, actor="bench", policy=policy)
        await command(kafka, start, timeout_s=STEP_TIMEOUT_S)
        await asyncio.sleep(HEALTHY_SECONDS)
        written = faults.with_suffix(".new")
        written.write_text(json.dumps(FAULT))
        at_ms = time.time_ns() / 1e6
        written.rename(faults)
        await _await(
            control,
            roles,
            lambda record: isinstance(decode_control(record), RollbackConfirmed),
            STEP_TIMEOUT_S,
            "no rollback was confirmed",
        )
        await asyncio.to_thread(faults.unlink)
        await asyncio.sleep(UNREAD_SECONDS)
    return at_ms


async def _await(
    reader: TopicReader,
    roles: list[Role],
    take: Callable[[Any], bool],
    within_s: float,
    otherwise: str,
) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for role in roles:
            if ended := role.ended():
                raise SystemExit(ended)
        for record in await reader.poll(0.2):
            if take(record):
                return
    raise SystemExit(f"{otherwise} within {within_s:g} s")


async def _reactions(kafka: KafkaSettings, faults_at: list[float]) -> list[Reaction]:
    """What the log and the control topic say about each rollback."""
    key = SERVICE.encode()
    log = [r for r in await read_all(kafka, Topic.LOG, committed_only=False) if r.key == key]
    control = [
        r for r in await read_all(kafka, Topic.CONTROL, committed_only=False) if r.key == key
    ]
    fold = Replay(SERVICE)
    decidable: dict[str, tuple[int, float]] = {}
    """By the rollback's id its place in the log, and when it became decidable."""
    at_ms: dict[int, float] = {}
    for place, record in enumerate(log):
        at_ms[record.offset] = float(record.timestamp)
        waiting = [one.offset for one in fold.state.pending]
        for event in fold.take(_entry(record)):
            if isinstance(event, RolloutRolledBack):
                first = min([*waiting, record.offset])
                decidable[event.id] = (place, at_ms[first])
    said = [(cloudevents.attributes(r.headers)["id"], r.value) for r in control]
    if wrong := disagreements(fold.decisions, said):
        raise SystemExit(f"the control topic does not say what the log does: {wrong[0]}")
    appended: dict[str, float] = {}
    for record in control:
        event = decode_control(record)
        if isinstance(event, RolloutRolledBack):
            appended.setdefault(event.id, float(record.timestamp))
    rolled_back = [e for e in fold.decisions if isinstance(e, RolloutRolledBack)]
    if len(rolled_back) != len(faults_at):
        raise SystemExit(f"{len(rolled_back)} rollbacks for {len(faults_at)} faults")
    reactions = []
    for event, fault_ms in zip(rolled_back, faults_at, strict=True):
        place, since_ms = decidable[event.id]
        reactions.append(
            Reaction(
                decide=appended[event.id] - since_ms,
                confirmed=_acknowledged_ms(log[place:], event.revision) - since_ms,
                regression=appended[event.id] - fault_ms,
            )
        )
    return reactions


def _acknowledged_ms(log: list[Any], revision: int) -> float:
    """When the last of the workers said that it has applied a revision."""
    missing = set(WORKERS)
    for record in log:
        beat = decode_log_record(record.value)
        if isinstance(beat, Heartbeat) and beat.applied_revision >= revision:
            missing.discard(beat.worker_id)
            if not missing:
                return float(record.timestamp)
    raise SystemExit(f"revision {revision} was not acknowledged by {', '.join(sorted(missing))}")


def _entry(record: Any) -> LogEntry:
    return LogEntry(record.partition, record.offset, record.timestamp, record.value)


def summary(reactions: list[Reaction]) -> dict[str, Any]:
    """Percentiles (nearest rank) and extremes in ms."""
    found: dict[str, Any] = {"repeats": len(reactions)}
    for name in Reaction._fields:
        took = sorted(float(getattr(each, name)) for each in reactions)
        found[f"{name}_p50_ms"] = statistics.median(took)
        found[f"{name}_p99_ms"] = took[-(-len(took) * 99 // 100) - 1]
        found[f"{name}_spread_ms"] = [took[0], took[-1]]
    return found


def _sample() -> list[PromptSubmitted]:
    with resources.as_file(resources.files("driftgate").joinpath("demo_prompts.jsonl")) as path:
        return [row for row in read_prompts(path) if isinstance(row, PromptSubmitted)]


def say(text: str) -> None:
    """Progress, beside the result."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
