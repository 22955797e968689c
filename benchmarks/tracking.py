"""The tracker on a real broker: what it keeps up with, and how fast it catches up.

    python -m benchmarks.tracking [--json] [--store sqlite,server] [--rate 500] [--seconds 20]

For each store (SQLite in the tracker's own process; `mlflow server` over SQLite), one tracker
process and one Kafka broker, everything on this machine:

- *catch-up*: a backlog of results is in the topics before the tracker starts, at the default
  sampling; events a second from when it begins to read until MLflow has all that is to be kept;
- *steady*: results at a rate for some seconds; how far behind the tracker is at their end, and how
  long it takes for the rest;
- *traces*: a backlog of which every prompt is kept (a model that is down makes each a fallback).

The mix: 1.5 % rejected, 0.3 % fallbacks, feedback on 0.2 %, the rest sampled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from benchmarks.machine import describe_machine
from driftgate.broker import EmbeddedKafka
from driftgate.mlflow_server import HOST, free_port, mlflow_server
from driftgate.processes import Role
from driftgate.settings import ENVIRONMENT, kafka_settings
from driftgate.topics import ensure_topics
from schemas import cloudevents
from schemas.feedback import FeedbackGiven, FeedbackKind
from schemas.prompts import (
    Arm,
    Assignment,
    FallbackReason,
    PromptEnriched,
    PromptRejected,
    RejectionCode,
    RuleScores,
    SemanticScores,
    SourcePosition,
    Timings,
)
from schemas.prompts import Path as AnalysisPath
from schemas.settings import KafkaSettings
from schemas.topics import Topic

REJECTED, FALLBACK, RATED = 0.015, 0.003, 0.002
PROMPT = (
    "Explain how compound interest works to somebody who has never saved, with an example. " * 2
)
TIMEOUT_S = 600.0


class Counts(NamedTuple):
    """What a tracker has taken."""

    events: int
    traces: int
    feedback: int


def main() -> None:
    """Run it and print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="sqlite,server")
    parser.add_argument("--rate", type=int, default=500, help="prompts a second")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--backlog", type=int, default=10_000, help="results to catch up with")
    parser.add_argument("--traces", type=int, default=400, help="of which every one is kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(_measure(options))
    if not options.json:
        for store, numbers in found["stores"].items():
            for name, value in numbers.items():
                sys.stdout.write(f"{store:<8} {name:<28} {value}\n")
    sys.stdout.write(json.dumps(found) + "\n")


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    stores = {}
    with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory() as folder:
        for store in options.store.split(","):
            with _stored(store, Path(folder)) as uri:
                stores[store] = await _store(kafka.bootstrap_servers, uri, Path(folder), options)
    return {
        "trace_ratio": float(ENVIRONMENT["DRIFTGATE_TRACE_RATIO"].default),
        "rate": options.rate,
        "stores": stores,
        "machine": describe_machine(),
    }


@contextmanager
def _stored(store: str, folder: Path) -> Iterator[str]:
    uri = f"sqlite:///{folder / store}.db"
    if store == "sqlite":
        yield uri
        return
    port = free_port()
    say("MLflow's server starts")
    with mlflow_server(uri, port, os.environ):
        yield f"http://{HOST}:{port}"


async def _store(
    servers: str, uri: str, folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    found: dict[str, float] = {}
    say(f"{uri}: catching up with {options.backlog} results")
    kafka = await _topics(servers)
    sent = await _publish(kafka, 0, options.backlog)
    with _tracking(kafka, uri, folder) as tracker:
        began = tracker.reading_since()
        taken = await tracker.until(sent)
        seconds = time.monotonic() - began
        found["catch_up_events_per_s"] = round(sent.events / seconds, 1)
        found["catch_up_traces_per_s"] = round(taken.traces / seconds, 1)
        say(f"{uri}: {options.rate} prompts a second for {options.seconds} s")
        before, began = tracker.counts(), time.monotonic()
        total = before
        for second in range(options.seconds):
            first = options.backlog + second * options.rate
            more = await _publish(kafka, first, options.rate)
            total = Counts(*(a + b for a, b in zip(total, more, strict=True)))
            await asyncio.sleep(max(0.0, began + second + 1 - time.monotonic()))
        behind = total.events - tracker.counts().events
        ended = time.monotonic()
        taken = await tracker.until(total)
        found["steady_behind_events"] = behind
        found["steady_behind_s"] = round(behind / options.rate, 2)
        found["steady_rest_s"] = round(time.monotonic() - ended, 2)
        found["steady_traces_per_s"] = round(
            (taken.traces - before.traces) / (time.monotonic() - began), 1
        )
        found["rss_mb"] = tracker.rss_mb()
    say(f"{uri}: {options.traces} fallbacks, each of which is kept")
    kafka = await _topics(servers)
    sent = await _publish(kafka, 0, options.traces, fallbacks=1.0)
    with _tracking(kafka, uri, folder) as tracker:
        began = tracker.reading_since()
        await tracker.until(sent)
        found["all_kept_traces_per_s"] = round(options.traces / (time.monotonic() - began), 1)
    return found


async def _topics(servers: str) -> KafkaSettings:
    kafka = msgspec.structs.replace(
        kafka_settings({}, servers), topic_prefix=f"b{random.getrandbits(32):08x}."
    )
    await ensure_topics(kafka)
    return kafka


async def _publish(
    kafka: KafkaSettings, first: int, count: int, fallbacks: float = FALLBACK
) -> Counts:
    """Write results, and feedback on some of them; what there is to take."""
    chance = random.Random(first)
    rated = 0
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True, linger_ms=10
    ) as producer:
        futures = []
        for offset in range(first, first + count):
            source = SourcePosition(kafka.topic(Topic.PROMPTS), offset % 4, offset)
            dice = chance.random()
            fallback = dice < fallbacks
            rejected = not fallback and dice < fallbacks + REJECTED and fallbacks < 1.0
            event = _rejected(source) if rejected else _enriched(source, fallback=fallback)
            topic = Topic.REJECTED if rejected else Topic.ENRICHED
            futures.append(
                await producer.send(
                    kafka.topic(topic),
                    cloudevents.encode_json(event),
                    headers=cloudevents.headers(
                        event, id=event.id, source="/b", subject="b", time_ms=_now_ms()
                    ),
                )
            )
            if not rejected and fallbacks < 1.0 and chance.random() < RATED:
                rated += 1
                given = FeedbackGiven(event_id=event.id, kind=FeedbackKind.USER_RATING, value=1.0)
                futures.append(
                    await producer.send(kafka.topic(Topic.FEEDBACK), msgspec.json.encode(given))
                )
        await asyncio.gather(*futures)
    return Counts(count, 0, rated)


class Tracker:
    """A tracker process, seen by its log and its metrics."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def reading_since(self) -> float:
        """When it began to read, by this process' clock, to 50 ms."""
        deadline = time.monotonic() + TIMEOUT_S
        while "traces: reading" not in self._log() or "metrics on" not in self._log():
            ended = self._role.ended()
            if ended or time.monotonic() > deadline:
                raise SystemExit(ended or "the tracker does not start")
            time.sleep(0.05)
        return time.monotonic()

    def counts(self) -> Counts:
        """What it has taken so far."""
        found = re.search(r"metrics on (http://\S+)", self._log())
        assert found
        with urllib.request.urlopen(found[1], timeout=60) as answer:  # noqa: S310 - our own
            lines = answer.read().decode().splitlines()
        values = {k: float(v) for k, v in (li.rsplit(" ", 1) for li in lines if li[:1] != "#")}

        def total(name: str) -> int:
            start = f"driftgate_tracker_{name}_total"
            return round(sum(v for k, v in values.items() if k.startswith(start)))

        traces = total("traces")
        return Counts(traces + total("sampled_out"), traces, total("feedback"))

    async def until(self, wanted: Counts) -> Counts:
        """Wait until it has taken so much: what is rated late has a trace more."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            found = self.counts()
            if found.events >= wanted.events and found.feedback >= wanted.feedback:
                return found
            await asyncio.sleep(0.1)
        raise SystemExit(f"{found} of {wanted} after {TIMEOUT_S:.0f} s")

    def rss_mb(self) -> float:
        """What it holds in memory."""
        text = Path(f"/proc/{self._role.pid}/status").read_text("utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return round(int(found[1]) / 1024, 1) if found else 0.0

    def _log(self) -> str:
        return self._role.log_path.read_text("utf-8", "replace")


@contextmanager
def _tracking(kafka: KafkaSettings, uri: str, folder: Path) -> Iterator[Tracker]:
    environ = {
        **os.environ,
        "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
        "DRIFTGATE_MLFLOW_URI": uri,
        "DRIFTGATE_MLFLOW_EXPERIMENT": kafka.topic_prefix,
        "DRIFTGATE_HTTP_PORT": "0",
    }
    role = Role("tracker", ["tracker"], environ, folder / f"{kafka.topic_prefix}log")
    with ExitStack() as stack:
        stack.enter_context(role)
        yield Tracker(role)


def _enriched(source: SourcePosition, *, fallback: bool) -> PromptEnriched:
    rules = dict.fromkeys(RuleScores.__struct_fields__, 0.5)
    semantic = dict.fromkeys(SemanticScores.__struct_fields__, 0.7)
    scores = SemanticScores(**semantic | {"domain": "general", "cache_hit": False})
    return PromptEnriched(
        id=source.event_id(),
        prompt_id=f"p-{source.offset}",
        user_id=f"u-{source.offset % 997}",
        service="bench",
        source=source,
        prompt=f"{PROMPT} ({source.offset})",
        path=AnalysisPath.FALLBACK if fallback else AnalysisPath.SEMANTIC,
        fallback_reason=FallbackReason.TIMEOUT if fallback else None,
        assignment=Assignment(
            arm=Arm.CANDIDATE, deployment="semantic", rollout_id="bench", rollout_revision=3
        ),
        rules=RuleScores(**rules),
        semantic=None if fallback else scores,
        score=0.6,
        semantic_weight=0.3,
        timings=Timings(
            rules_seconds=0.01,
            embed_seconds=0.1,
            semantic_seconds=0.12,
            processing_seconds=0.15,
            wait_seconds=0.02,
            batch_seconds=0.15,
        ),
        worker_id="w-1",
    )


def _rejected(source: SourcePosition) -> PromptRejected:
    return PromptRejected(
        id=source.event_id(),
        service="bench",
        source=source,
        code=RejectionCode.EMPTY,
        reason="nothing to be seen",
        payload=b'{"prompt": " "}',
        payload_bytes=15,
        payload_truncated=False,
        worker_id="w-1",
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
