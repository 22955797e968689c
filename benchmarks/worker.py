"""The whole worker on a real Kafka broker, beside the loop that a user would write.

    python -m benchmarks.worker FILE.jsonl [--json]

Every prompt is analysed semantically (blue is the semantic deployment). One worker, one thread that
computes. Four runs: distinct prompts and a mix in which 70 % repeat, each exactly once and at least
once; then the same repeating mix through the loop that a user would write (aiokafka, one
`SentenceTransformer.encode` a message). The bare encoder embeds the texts that the worker embeds,
without Kafka, in this process.

Times are the broker's (append times of prompts and results), so both sides are measured alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from analyzer.loading import load_model
from analyzer.semantic import Model
from benchmarks.machine import describe_machine
from driftgate.broker import EmbeddedKafka
from driftgate.processes import Role
from driftgate.producing import produce
from driftgate.reading import TopicReader, read_all
from driftgate.settings import analyzer_settings, kafka_settings
from driftgate.topics import ensure_topics
from schemas import cloudevents
from schemas.log import Heartbeat, ModelState, decode_log_record
from schemas.prompts import PromptEnriched, PromptSubmitted
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import Topic

REPEATING = 0.7
"""Share of prompts in the mix that were there before."""
STEADY_LOAD = 0.7
"""Latency is measured at this share of the throughput."""
STEADY_SECONDS = 10
TIMEOUT_S = 300.0


def main() -> None:
    """Run it and print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSONL with `prompt` or `text`")
    parser.add_argument("--prompts", type=int, default=4000, help="a run")
    parser.add_argument("--naive-prompts", type=int, default=300, help="of the naive loop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(_measure(options))
    if not options.json:
        for name, value in found.items():
            sys.stdout.write(f"{name:<28} {value}\n")
    sys.stdout.write(json.dumps(found) + "\n")


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    texts = _texts(options.file)
    several = {
        "distinct": _distinct(texts, 2 * options.prompts),
        "mix": _mix(texts, 2 * options.prompts),
    }
    distinct, mix = (several[name][: options.prompts] for name in ("distinct", "mix"))
    with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory() as folder:
        runs: dict[str, list[dict[str, float]]] = {}
        bare: list[float] = []
        naive: list[float] = []
        for repeat in range(options.repeats):
            bare.append(_bare_encoder(distinct))
            for delivery in ("exactly_once", "at_least_once"):
                for name, both in several.items():
                    say(f"repeat {repeat + 1}: {delivery}, {name}")
                    now, later = both[: options.prompts], both[options.prompts :]
                    run = await _worker(kafka.bootstrap_servers, now, later, delivery, Path(folder))
                    runs.setdefault(f"{delivery}_{name}", []).append(run)
            say(f"repeat {repeat + 1}: the naive loop")
            naive.append(await _naive(kafka.bootstrap_servers, mix[: options.naive_prompts]))
    return _summary(runs, bare, naive) | {"machine": describe_machine(), "file": options.file.name}


def _summary(
    runs: dict[str, list[dict[str, float]]], bare: list[float], naive: list[float]
) -> dict[str, Any]:
    medians = {
        name: {key: statistics.median(run[key] for run in several) for key in several[0]}
        for name, several in runs.items()
    }
    once, mix = medians["exactly_once_distinct"], medians["exactly_once_mix"]
    return {
        "prompts_per_s": once["prompts_per_s"],
        "prompts_per_s_mix": mix["prompts_per_s"],
        "prompts_per_s_spread": [
            min(run["prompts_per_s"] for run in runs["exactly_once_distinct"]),
            max(run["prompts_per_s"] for run in runs["exactly_once_distinct"]),
        ],
        "bare_encoder_prompts_per_s": statistics.median(bare),
        "share_of_bare_encoder": once["prompts_per_s"] / statistics.median(bare),
        "exactly_once_over_at_least_once": (
            once["prompts_per_s"] / medians["at_least_once_distinct"]["prompts_per_s"]
        ),
        "p50_ms": once["p50_ms"],
        "p95_ms": once["p95_ms"],
        "end_to_end_p95_ms": once["end_to_end_p95_ms"],
        "rss_mb": max(run["rss_mb"] for several in runs.values() for run in several),
        "start_to_ready_s": statistics.median(
            run["ready_s"] for several in runs.values() for run in several
        ),
        "cache_hit_rate": mix["cache_hit_rate"],
        "naive_prompts_per_s": statistics.median(naive),
        "ratio_vs_naive": mix["prompts_per_s"] / statistics.median(naive),
        "runs": medians,
    }


async def _worker(
    servers: str,
    prompts: list[PromptSubmitted],
    later: list[PromptSubmitted],
    delivery: str,
    folder: Path,
) -> dict[str, float]:
    """One worker over all prompts: throughput from a full topic, then latency at a steady rate."""
    kafka = msgspec.structs.replace(
        kafka_settings({}, servers), topic_prefix=f"b{random.getrandbits(32):08x}."
    )
    await ensure_topics(kafka)
    await _serve_semantic(kafka)
    environ = {
        **os.environ,
        "DRIFTGATE_BOOTSTRAP_SERVERS": servers,
        "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
        "DRIFTGATE_DELIVERY": delivery,
        "DRIFTGATE_WORKER_ID": "bench",
        "OMP_NUM_THREADS": "1",
    }
    started = time.monotonic()
    with Role("analyzer", ["analyzer"], environ, folder / "analyzer.log") as worker:
        await _ready(kafka, worker)
        ready_s = time.monotonic() - started
        await produce(kafka, prompts)
        first = await _results(kafka, worker, len(prompts))
        throughput = len(first) / _span_s(first)
        hits = sum(event.semantic.cache_hit for _, event in first if event.semantic)
        heartbeat = await _last_heartbeat(kafka)
        steady = [
            msgspec.structs.replace(p, id=f"steady-{n}")
            for n, p in enumerate(later[: int(throughput * STEADY_LOAD * STEADY_SECONDS)])
        ]
        await produce(kafka, steady, rate_per_s=throughput * STEADY_LOAD)
        await _results(kafka, worker, len(prompts) + len(steady))
        delivered, whole = await _latencies_ms(kafka, {p.id for p in steady if p.id})
    return {
        "prompts_per_s": throughput,
        "ready_s": ready_s,
        "p50_ms": statistics.median(delivered),
        "p95_ms": statistics.quantiles(delivered, n=20)[-1],
        "end_to_end_p50_ms": statistics.median(whole),
        "end_to_end_p95_ms": statistics.quantiles(whole, n=20)[-1],
        "rss_mb": heartbeat.rss_bytes / 1e6,
        "cache_hit_rate": hits / len(first),
    }


async def _serve_semantic(kafka: KafkaSettings) -> None:
    blue = Deployment(name="semantic", kind=DeploymentKind.SEMANTIC)
    state = RolloutState(service="default", revision=1, phase=Phase.IDLE, blue=blue)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    try:
        await producer.send_and_wait(
            kafka.topic(Topic.ROLLOUT), key=b"default", value=cloudevents.encode_json(state)
        )
    finally:
        await producer.stop()


async def _ready(kafka: KafkaSettings, worker: Role) -> None:
    async with TopicReader(kafka, Topic.LOG) as log:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            _check(worker)
            for record in await log.poll(0.1):
                beat = decode_log_record(record.value)
                if isinstance(beat, Heartbeat) and beat.model is ModelState.READY:
                    return
    raise SystemExit("the worker did not get ready")


async def _results(
    kafka: KafkaSettings, worker: Role, wanted: int
) -> list[tuple[Any, PromptEnriched]]:
    """Every enriched event with its record, once all are there."""
    deadline = time.monotonic() + TIMEOUT_S
    records: list[Any] = []
    async with TopicReader(kafka, Topic.ENRICHED, committed_only=True) as reader:
        while len(records) < wanted:
            _check(worker)
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(records)} of {wanted} results")
            records += await reader.poll(0.5)
    return [(r, cloudevents.decode_json(r.value, PromptEnriched)) for r in records]


def _span_s(results: list[tuple[Any, PromptEnriched]]) -> float:
    """From the first to the last result, by the broker's clock."""
    times = [record.timestamp for record, _ in results]
    return max(max(times) - min(times), 1) / 1000


async def _latencies_ms(kafka: KafkaSettings, ids: set[str]) -> tuple[list[float], list[float]]:
    """From the poll, and from the prompt's append, to the result's append.

    The poll is the event's own time less its processing time, on this machine's one clock.
    """
    asked = {}
    for record in await read_all(kafka, Topic.PROMPTS, committed_only=True):
        asked[(record.partition, record.offset)] = record.timestamp
    delivered, whole = [], []
    for record in await read_all(kafka, Topic.ENRICHED, committed_only=True):
        event = cloudevents.decode_json(record.value, PromptEnriched)
        if event.prompt_id in ids:
            source = (event.source.partition, event.source.offset)
            whole.append(float(record.timestamp - asked[source]))
            made = datetime.fromisoformat(cloudevents.attributes(record.headers)["time"])
            polled = made.timestamp() - event.timings.processing_seconds
            delivered.append(record.timestamp - polled * 1000)
    return delivered, whole


async def _last_heartbeat(kafka: KafkaSettings) -> Heartbeat:
    beats = [
        beat
        for record in await read_all(kafka, Topic.LOG, committed_only=False)
        if isinstance(beat := decode_log_record(record.value), Heartbeat)
    ]
    return max(beats, key=lambda beat: beat.rss_bytes)


def _check(worker: Role) -> None:
    ended = worker.ended()
    if ended:
        raise SystemExit(ended)


def _bare_encoder(prompts: list[PromptSubmitted]) -> float:
    """Prompts a second of the encoder alone, on the texts that a worker embeds, in its polls."""
    model = _model()
    poll = analyzer_settings({}, kafka_settings({})).max_poll_records
    several = [model.scorer.texts_to_embed(prompt) for prompt in prompts]
    started = time.perf_counter()
    for start in range(0, len(several), poll):
        model.encoder.encode(
            list(dict.fromkeys(text for each in several[start : start + poll] for text in each))
        )
    return len(prompts) / (time.perf_counter() - started)


_loaded: list[Model] = []


def _model() -> Model:
    if not _loaded:
        _loaded.append(load_model(analyzer_settings(os.environ, kafka_settings({}))))
    return _loaded[0]


async def _naive(servers: str, prompts: list[PromptSubmitted]) -> float:
    """Prompts a second of the loop that a user would write."""
    import torch  # noqa: PLC0415 - only the naive loop needs it in the process
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    from analyzer.model import locate_model  # noqa: PLC0415

    torch.set_num_threads(1)
    model = SentenceTransformer(locate_model().location, device="cpu")
    model.encode("warm")
    kafka = msgspec.structs.replace(
        kafka_settings({}, servers), topic_prefix=f"n{random.getrandbits(32):08x}."
    )
    await ensure_topics(kafka)
    await produce(kafka, prompts)
    consumer = AIOKafkaConsumer(
        kafka.topic(Topic.PROMPTS),
        bootstrap_servers=servers,
        group_id=f"{kafka.topic_prefix}naive",
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await consumer.start()
    await producer.start()
    done = 0
    try:
        started = time.perf_counter()
        async for record in consumer:
            prompt = json.loads(record.value)
            vector = model.encode(prompt["prompt"])
            result = {"id": prompt["id"], "vector": vector.tolist()}
            await producer.send_and_wait(
                kafka.topic(Topic.ENRICHED), key=record.key, value=json.dumps(result).encode()
            )
            done += 1
            if done == len(prompts):
                break
        return done / (time.perf_counter() - started)
    finally:
        await producer.stop()
        await consumer.stop()


def _texts(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [row.get("prompt", row.get("text")) for row in rows]


def _distinct(texts: list[str], count: int) -> list[PromptSubmitted]:
    """Prompts that are all different; a short file is told apart by a number at the end."""
    chosen = random.Random(1).sample(texts, min(count, len(texts)))
    return [
        PromptSubmitted(
            id=f"d-{n}",
            # In front: at the end it would be a sentence of its own, and change what is computed.
            prompt=(f"No {n}: " if n >= len(chosen) else "") + chosen[n % len(chosen)],
        )
        for n in range(count)
    ]


def _mix(texts: list[str], count: int) -> list[PromptSubmitted]:
    """Prompts of which 70 % were there before."""
    chance = random.Random(2)
    fresh = iter(_distinct(texts, count))
    seen: list[str] = []
    mixed = []
    for n in range(count):
        if seen and chance.random() < REPEATING:
            text = chance.choice(seen)
        else:
            text = next(fresh).prompt
            seen.append(text)
        mixed.append(PromptSubmitted(id=f"m-{n}", prompt=text))
    return mixed


def say(text: str) -> None:
    """Progress, beside the result."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
