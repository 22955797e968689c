"""One measurement of `benchmarks.monitor`: how fast a system was, and whether it is right."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.monitor_kafka import create, fill, follow, remove, set_config
from benchmarks.monitor_peers import Peer
from benchmarks.monitor_process import PeerProcess, Process, Usage, running
from benchmarks.monitor_results import Mark, WindowResult, differences, timed
from benchmarks.monitor_rows import SPAN_MS, Load, log_records
from driftgate.processes import Role
from driftgate.reading import decode_metrics
from driftgate.topics import ensure_topics
from schemas.control import GateStatus, WindowMetrics
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic

__all__ = [
    "LOG_BATCH_BYTES",
    "MONITOR_P95_ERROR",
    "Run",
    "run_monitor",
    "run_peer",
    "window_result",
]

LOG_BATCH_BYTES = 0
"""Analyzers wait for the delivery of each record, so each is a produce request of its own."""
MONITOR_P95_ERROR = 0.02
"""See `streams.panes.quantile`."""
_LIMIT_S = 300.0


class Run(msgspec.Struct, frozen=True):
    """A measurement."""

    rows_per_s: float
    rows_per_cpu_s: float
    """The same by the CPU time of its process: what it would be with the core for itself."""
    rss_mb: float
    """The most that was seen."""
    wrong: list[str]
    """How its results differ from the exact ones."""


async def run_peer(
    servers: str, peer: Peer, source: str, load: Load, expected: Sequence[WindowResult]
) -> Run:
    """A peer over a topic that holds the load."""
    name = f"p{random.getrandbits(32):08x}"
    output = f"{name}.results"
    await create(servers, output)
    found: list[WindowResult] = []

    def take(record: Any) -> bool:
        result = msgspec.json.decode(record.value, type=WindowResult)
        if result.start_ms < load.begin_ms + SPAN_MS:
            found.append(result)
        return len(found) >= len(expected)

    with tempfile.TemporaryDirectory() as folder:
        command = [*peer.command(), servers, source, output, name, str(load.rows)]
        process = PeerProcess(command, Path(folder))
        with running(process) as usage:
            await _follow(servers, output, process, usage, take)
        marks = process.marks()
    wrong = differences(expected, found, p95_error=peer.p95_error)
    return _run(peer.name, marks, load, usage, wrong)


async def run_monitor(
    servers: str, load: Load, expected: Sequence[WindowResult], *, gates: bool
) -> Run:
    """Our own monitor over a log that holds the load."""
    kafka = KafkaSettings(
        bootstrap_servers=servers,
        topic_prefix=f"m{random.getrandbits(32):08x}.",
        prompt_partitions=1,
        service_partitions=1,
    )
    await _write_log(kafka, load, gates=gates)
    found: list[WindowResult] = []
    marks: list[Mark] = []
    wrong: list[str] = []

    def take(record: Any) -> bool:
        event = decode_metrics(record)
        if not isinstance(event, GateStatus):
            if event.final and event.segment == "all" and event.prompts:
                found.append(window_result(event))
            return False
        marks.append(Mark(event.measured, record.timestamp))
        if event.phase is not Phase.PROGRESSING or event.share != 0.5:
            wrong.append(
                f"the rollout is {event.phase} at {event.share:.0%} after {event.measured}"
            )
        return event.measured >= load.rows

    environ = {
        **os.environ,
        "DRIFTGATE_BOOTSTRAP_SERVERS": servers,
        "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
        "DRIFTGATE_PROMPT_PARTITIONS": "1",
        "DRIFTGATE_SERVICE_PARTITIONS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        process = Role("monitor", ["monitor"], environ, Path(folder) / "monitor.log")
        with running(process) as usage:
            await _follow(servers, kafka.topic(Topic.METRICS), process, usage, take)
    await remove(servers, [kafka.topic(spec.topic) for spec in TOPICS])
    wrong += differences(expected, found, p95_error=MONITOR_P95_ERROR)
    return _run("driftgate", marks, load, usage, wrong)


async def _write_log(kafka: KafkaSettings, load: Load, *, gates: bool) -> None:
    """Fill the log with records that keep the time they were given, then make it as it must be.

    The setting counts for what is written from then on, so the monitor finds its log in order, and
    in it a past whose times are known.
    """
    spec = next(spec for spec in TOPICS if spec.topic is Topic.LOG)
    topic = kafka.topic(Topic.LOG)
    await create(kafka.bootstrap_servers, topic, spec.config())
    records = log_records(load, gates=gates)
    await fill(kafka.bootstrap_servers, topic, records, batch_bytes=LOG_BATCH_BYTES)
    await set_config(kafka.bootstrap_servers, topic, spec.config())
    await ensure_topics(kafka)


async def _follow(
    servers: str, topic: str, process: Process, usage: Usage, take: Callable[[Any], bool]
) -> None:
    def idle() -> None:
        usage.sample()
        if ended := process.ended():
            raise SystemExit(ended)

    try:
        await follow(servers, topic, take, idle, _LIMIT_S)
    except TimeoutError:
        # What is missing is said with the results.
        print(f"no end of results within {_LIMIT_S:g} s", file=sys.stderr)
    usage.sample()


def window_result(event: WindowMetrics) -> WindowResult:
    """Of our own monitor's metrics what the others compute too; for a window that has rows."""
    assert event.processing_seconds_mean is not None  # there are rows
    assert event.processing_seconds_p95 is not None
    return WindowResult(
        start_ms=event.start_ms,
        arm=event.arm,
        count=event.prompts,
        mean=event.processing_seconds_mean,
        error_rate=event.system_errors / event.prompts,
        p95=event.processing_seconds_p95,
    )


def _run(name: str, marks: Sequence[Mark], load: Load, usage: Usage, wrong: list[str]) -> Run:
    try:
        first, last = timed(marks, load.rows)
    except ValueError as error:
        raise SystemExit(
            f"{name} was not measured ({error}): ask for fewer --rows if it is slow here"
        ) from error
    taken = last.rows - first.rows
    return Run(
        rows_per_s=taken / max(last.at_ms - first.at_ms, 1.0) * 1000,
        rows_per_cpu_s=taken / max(usage.cpu_s(first.at_ms, last.at_ms), 1e-3),
        rss_mb=usage.peak_rss_mb,
        wrong=wrong,
    )
