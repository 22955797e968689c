"""Real `driftgate analyzer` processes: stopped, killed, frozen, doubled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from schemas.prompts import FallbackReason, SourcePosition
from schemas.prompts import Path as Taken
from schemas.settings import KafkaSettings
from tests.support.processes import Launch
from tests.support.topics import (
    Prompt,
    heartbeats,
    measured,
    outcome,
    prompt,
    publish_state,
    submit,
    wait_for_outcome,
)
from tests.support.workers import rolling, settings_of, until, working

NO_MODEL = {"DRIFTGATE_MODEL": "/nonexistent"}
"""Rules serve then; these tests are about Kafka, and the model takes 10 s to load."""


def prompts(count: int, name: str = "p") -> list[Prompt]:
    return [prompt(f"Explain subject number {n} to a child", f"{name}-{n}") for n in range(count)]


def places(sent: list[SourcePosition]) -> list[tuple[int, int]]:
    return sorted((one.partition, one.offset) for one in sent)


def test_terminated_worker_leaves_in_order(kafka: KafkaSettings, launch: Launch) -> None:
    """SIGTERM in mid-stream lets the batch finish; the last heartbeat says leaving; code 0.

    What it did not get to, a worker that comes after it has at once, because it has left the group.
    """
    sent = asyncio.run(submit(kafka, prompts(600)))
    worker = launch("analyzer", kafka=kafka, DRIFTGATE_MAX_POLL_RECORDS="4", **NO_MODEL)
    asyncio.run(wait_for_outcome(kafka, 20))
    assert worker.stop() == 0
    done = asyncio.run(outcome(kafka))
    assert 20 <= len(done.records) < len(sent)
    assert worker.log.rstrip().endswith(f"stopped after {len(done.records)} prompts")
    *before, last = asyncio.run(heartbeats(kafka))
    assert last.leaving
    assert last.prompts == len(done.records)
    assert not any(one.leaving for one in before)

    async def go_on() -> None:
        async with working(settings_of(kafka)):
            await wait_for_outcome(kafka, len(sent))

    asyncio.run(go_on())
    assert asyncio.run(outcome(kafka)).positions == sorted(sent)
    assert asyncio.run(measured(kafka)).positions == places(sent)


def test_killed_worker_loses_and_repeats_nothing(kafka: KafkaSettings, launch: Launch) -> None:
    """Kill -9 in mid-stream, three times, each time started again under its id."""
    sent = asyncio.run(submit(kafka, prompts(2000)))
    arguments = ("analyzer", "--worker-id", "w-1")
    done = 0
    for _ in range(3):
        worker = launch(*arguments, kafka=kafka, DRIFTGATE_MAX_POLL_RECORDS="3", **NO_MODEL)
        asyncio.run(wait_for_outcome(kafka, done + 40))
        worker.kill()
        done = len(asyncio.run(outcome(kafka)).positions)
    assert len(asyncio.run(outcome(kafka, committed_only=False)).records) < len(sent)
    worker = launch(*arguments, kafka=kafka, **NO_MODEL)
    found = asyncio.run(wait_for_outcome(kafka, len(sent)))
    assert worker.stop() == 0
    assert found.positions == sorted(sent)
    rows = asyncio.run(measured(kafka))
    assert rows.positions == places(sent)
    assert len({batch.incarnation for batch in rows.batches}) == 4


def test_doubled_worker_ends_with_its_code(kafka: KafkaSettings, launch: Launch) -> None:
    """Of two processes under one id the older one ends, with exit code 5 and what to do."""
    arguments = ("analyzer", "--worker-id", "w-1")
    older = launch(*arguments, kafka=kafka, **NO_MODEL)
    sent = asyncio.run(submit(kafka, prompts(5)))
    asyncio.run(wait_for_outcome(kafka, 5))
    newer = launch(*arguments, kafka=kafka, **NO_MODEL)
    newer.wait_for_log("waiting for prompts")

    async def stream() -> None:
        for number in range(600):
            if older.code is not None:
                return
            sent.extend(await submit(kafka, prompts(2, f"q{number}")))
            await asyncio.sleep(0.1)

    asyncio.run(stream())
    assert older.wait() == 5
    message = older.log.splitlines()[-1]
    assert "'w-1'" in message
    assert "DRIFTGATE_WORKER_ID" in message
    assert "Traceback" not in older.log
    found = asyncio.run(wait_for_outcome(kafka, len(sent)))
    assert newer.stop() == 0
    assert found.positions == sorted(sent)
    assert asyncio.run(measured(kafka)).positions == places(sent)


def test_frozen_worker_duplicates_nothing(kafka: KafkaSettings, launch: Launch) -> None:
    """A worker is frozen for longer than its session, and another has done its work meanwhile.

    When it thaws it goes on with what the group gives it then.
    """
    frozen = launch("analyzer", kafka=kafka, DRIFTGATE_MAX_POLL_RECORDS="2", **NO_MODEL)

    async def story() -> list[SourcePosition]:
        sent = await submit(kafka, prompts(400))
        await wait_for_outcome(kafka, 10)
        frozen.suspend()
        async with working(settings_of(kafka, "w-2")):
            # Only once the session of the frozen one has timed out.
            await wait_for_outcome(kafka, len(sent))
            frozen.resume()
            frozen.wait_for_log("working on partitions", times=2)
        sent += await submit(kafka, prompts(20, "q"))
        found = await wait_for_outcome(kafka, len(sent))
        assert found.positions == sorted(sent)
        assert (await measured(kafka)).positions == places(sent)
        return sent

    asyncio.run(story())
    assert frozen.stop() == 0


def test_real_model_serves_and_a_hang_of_it_is_survived(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """all-MiniLM-L6-v2 scores prompts; when it hangs, rules serve, and SIGTERM ends the worker."""
    faults = tmp_path / "faults.json"
    asyncio.run(publish_state(kafka, rolling()))
    worker = launch(
        "analyzer",
        kafka=kafka,
        DRIFTGATE_FAULTS_FILE=str(faults),
        DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS="3",
    )
    worker.wait_for_log("model ready", within_s=120)
    asyncio.run(submit(kafka, [prompt("Write a Python function that reverses a linked list")]))
    [served] = asyncio.run(wait_for_outcome(kafka, 1)).enriched
    assert served.path is Taken.SEMANTIC
    assert served.semantic is not None
    assert served.semantic.coherence > 0.5
    assert served.semantic_weight == 0.3
    faults.write_text(json.dumps({"delay_ms": 60_000}))

    async def hang() -> None:
        count = 1

        async def fallen_back() -> bool:
            nonlocal count
            count += 1
            await submit(kafka, [prompt(f"Explain what the number {count} means")])
            found = (await wait_for_outcome(kafka, count)).enriched
            return any(one.fallback_reason is FallbackReason.TIMEOUT for one in found)

        await until("the model hangs", fallen_back)

    asyncio.run(hang())
    assert worker.stop() == 0
    last = asyncio.run(heartbeats(kafka))[-1]
    assert last.leaving
    assert last.encoder
