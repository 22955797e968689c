"""Whatever the model does, prompts are served: by rules, and by it once it works (M64, M65)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from analyzer import semantic
from analyzer.encoder import HashingEncoder, Vectors
from analyzer.errors import EncoderError, ModelError
from analyzer.semantic import Model
from schemas.log import CacheLookups, ModelState, RowFlag, SharedCache, SharedCacheState
from schemas.prompts import FallbackReason, PromptEnriched
from schemas.prompts import Path as Taken
from schemas.settings import KafkaSettings
from tests.support.topics import (
    Prompt,
    heartbeats,
    measured,
    prompt,
    publish_state,
    submit,
    wait_for_outcome,
)
from tests.support.workers import hashing_model, model_of, rolling, settings_of, until, working


class BreakingEncoder(HashingEncoder):
    """Works, but for when it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.let_go = threading.Event()

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = super().encode(texts)
        match self.fault:
            case "raises":
                raise EncoderError("out of memory")
            case "raises something strange":
                raise KeyError("weights")
            case "NaN":
                vectors[0, 3] = np.nan
            case "zero":
                vectors[:] = 0.0
            case "too few":
                return vectors[:-1]
            case "too short":
                return vectors[:, :-1]
            case "hangs":
                self.let_go.wait()
        return vectors


def prompts(count: int, name: str = "p") -> list[Prompt]:
    return [prompt(f"Explain subject number {n} of {name}", f"{name}-{n}") for n in range(count)]


def taken(found: Sequence[PromptEnriched]) -> set[tuple[Taken, FallbackReason | None]]:
    return {(one.path, one.fallback_reason) for one in found}


def newer(
    found: Sequence[PromptEnriched], before: Sequence[PromptEnriched]
) -> list[PromptEnriched]:
    """Those that were not there before; records of several partitions have no order."""
    return [one for one in found if one.id not in {each.id for each in before}]


SEMANTIC = {(Taken.SEMANTIC, None)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", FallbackReason.ENCODER_ERROR),
        ("raises something strange", FallbackReason.ENCODER_ERROR),
        ("NaN", FallbackReason.INVALID_VECTOR),
        ("zero", FallbackReason.INVALID_VECTOR),
        ("too few", FallbackReason.INVALID_VECTOR),
        ("too short", FallbackReason.INVALID_VECTOR),
    ],
)
async def test_broken_encoder_costs_the_semantic_half_only(
    kafka: KafkaSettings, fault: str, reason: FallbackReason
) -> None:
    """Prompts get the rules result with the reason; the same texts are semantic again later."""
    encoder = BreakingEncoder()
    await publish_state(kafka, rolling())
    async with working(settings_of(kafka), lambda: model_of(encoder)) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        encoder.fault = fault
        sent = await submit(kafka, prompts(5))
        broken = (await wait_for_outcome(kafka, 5)).enriched
        encoder.fault = ""
        sent += await submit(kafka, prompts(5))
        found = await wait_for_outcome(kafka, 10)
    assert taken(broken) == {(Taken.FALLBACK, reason)}
    assert {one.score for one in broken} == {one.rules.overall for one in broken}
    assert taken(newer(found.enriched, broken)) == SEMANTIC
    assert found.positions == sorted(sent)
    flags = (await measured(kafka)).flags
    fallen = {place for place, flag in flags.items() if flag & RowFlag.FALLBACK}
    assert fallen == {(one.source.partition, one.source.offset) for one in broken}


async def test_hanging_encoder_is_given_up_after_the_timeout(kafka: KafkaSettings) -> None:
    """The first batch times out, the next ones do not wait, and later ones are semantic again."""
    encoder = BreakingEncoder()
    await publish_state(kafka, rolling())
    settings = settings_of(kafka, semantic_timeout_seconds=0.3)
    async with working(settings, lambda: model_of(encoder)) as worker:
        try:
            await until("the model is loaded", lambda: worker._engine.model)
            encoder.fault = "hangs"
            await submit(kafka, prompts(2), partition=0)
            first = (await wait_for_outcome(kafka, 2)).enriched
            await submit(kafka, prompts(2, "q"), partition=0)
            second = newer((await wait_for_outcome(kafka, 4)).enriched, first)
            encoder.fault = ""
            encoder.let_go.set()
            await until("the model is free", lambda: not worker._engine._thread.busy)
            count = 4

            async def semantic_again() -> bool:
                nonlocal count
                count += 1
                await submit(kafka, prompts(1, f"r{count}"), partition=0)
                found = (await wait_for_outcome(kafka, count)).enriched
                return any(one.path is Taken.SEMANTIC for one in found)

            await until("the model serves again", semantic_again)
        finally:
            encoder.let_go.set()
    assert taken(first) == {(Taken.FALLBACK, FallbackReason.TIMEOUT)}
    assert taken(second) == {(Taken.FALLBACK, FallbackReason.BUSY)}


async def test_worker_stops_while_its_model_hangs(kafka: KafkaSettings) -> None:
    """A stop waits for the time-out of the batch, not for the model."""
    encoder = BreakingEncoder()
    await publish_state(kafka, rolling())
    settings = settings_of(kafka, semantic_timeout_seconds=0.3)
    try:
        async with working(settings, lambda: model_of(encoder)) as worker:
            await until("the model is loaded", lambda: worker._engine.model)
            encoder.fault = "hangs"
            sent = await submit(kafka, prompts(2))
            found = await wait_for_outcome(kafka, 2)
        # The block's end has stopped the worker, and it still hangs.
        assert worker._engine._thread.busy
    finally:
        encoder.let_go.set()
    assert found.positions == sorted(sent)


async def test_missing_model_is_tried_again(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a model prompts are served by rules; once it can be had, by it (M22)."""
    monkeypatch.setattr(semantic, "RELOAD_SECONDS", 0.05)
    there = threading.Event()

    def load() -> Model:
        if not there.is_set():
            raise ModelError("no model here; install one")
        return hashing_model()

    await publish_state(kafka, rolling())
    async with working(settings_of(kafka), load) as worker:
        await until("the model is missed", lambda: worker._engine.state == ModelState.UNAVAILABLE)
        sent = await submit(kafka, prompts(3))
        before = (await wait_for_outcome(kafka, 3)).enriched

        async def said() -> bool:
            return ModelState.UNAVAILABLE in [one.model for one in await heartbeats(kafka)]

        await until("a heartbeat says so", said)
        there.set()
        await until("the model is loaded", lambda: worker._engine.model)
        sent += await submit(kafka, prompts(3, "q"))
        found = await wait_for_outcome(kafka, 6)
    assert taken(before) == {(Taken.FALLBACK, FallbackReason.MODEL_UNAVAILABLE)}
    assert taken(newer(found.enriched, before)) == SEMANTIC
    assert found.positions == sorted(sent)
    assert (await heartbeats(kafka))[-1].model is ModelState.READY


async def test_no_prompt_is_taken_before_the_model_is_there(kafka: KafkaSettings) -> None:
    """A start is no failure: what waits meanwhile is analysed semantically, none by fallback."""

    def load() -> Model:
        time.sleep(1.0)
        return hashing_model()

    await publish_state(kafka, rolling())
    sent = await submit(kafka, prompts(5))
    async with working(settings_of(kafka), load):
        found = await wait_for_outcome(kafka, 5)
    assert taken(found.enriched) == SEMANTIC
    assert found.positions == sorted(sent)


async def test_faults_file_injects(kafka: KafkaSettings, tmp_path: Path) -> None:
    """A rehearsal's faults act while the file says so, on the deployment that it names (M70)."""
    file = tmp_path / "faults.json"
    await publish_state(kafka, rolling())
    settings = settings_of(kafka, faults_file=file)

    def write(**faults: object) -> None:
        file.write_text(json.dumps(faults))

    async with working(settings, hashing_model) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        seen: list[str] = []

        async def serve(name: str, noticed: Callable[[PromptEnriched], bool]) -> None:
            """Prompts, until one of them shows that the file was read."""

            async def one() -> bool:
                await submit(kafka, prompts(1, f"{name}{len(seen)}"))
                found = (await wait_for_outcome(kafka, len(seen) + 1)).enriched
                [new] = [each for each in found if each.id not in seen]
                seen.append(new.id)
                return noticed(new)

            await until(name, one)

        def semantic_now(one: PromptEnriched) -> bool:
            return one.semantic is not None and one.semantic.relevance > 0

        await serve("none", semantic_now)
        write(error_rate=1.0)
        await serve("errors", lambda one: one.fallback_reason is FallbackReason.ENCODER_ERROR)
        write(deployment="another", error_rate=1.0)
        await serve("another deployment", semantic_now)
        write(score_factor=0.0)
        await serve("worse", lambda one: one.semantic is not None and one.semantic.relevance == 0)
        file.write_text("{")
        await serve("unreadable", semantic_now)
        file.unlink()
        await serve("gone", semantic_now)


async def test_cached_texts_are_not_computed_again(kafka: KafkaSettings) -> None:
    """The second time a text comes, its vector is from the cache, and the heartbeat counts it."""
    encoder = BreakingEncoder()
    await publish_state(kafka, rolling())
    async with working(settings_of(kafka), lambda: model_of(encoder)) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        await submit(kafka, prompts(1))
        await wait_for_outcome(kafka, 1)
        encoder.fault = "raises"
        await submit(kafka, prompts(1))
        found = await wait_for_outcome(kafka, 2)
    hits = sorted(one.semantic.cache_hit for one in found.enriched if one.semantic)
    assert hits == [False, True]
    last = (await heartbeats(kafka))[-1]
    assert (last.cache_hits > 0, last.cache_misses > 0, last.cache_entries > 0) == (True,) * 3
    # By arm: everybody is a candidate here (M18).
    assert last.cache_candidate == CacheLookups(hits=1, misses=1)
    assert last.cache_control == CacheLookups()
    assert last.shared_cache == SharedCache(state=SharedCacheState.OFF)


async def test_a_backlog_is_worked_off_by_rules(kafka: KafkaSettings) -> None:
    """While more prompts wait than allowed, they get the rules result, and are marked (M65)."""
    await publish_state(kafka, rolling())
    sent = await submit(kafka, prompts(300), partition=0)
    settings = settings_of(kafka, shed_lag_messages=100, max_poll_records=16)
    async with working(settings):
        shed = (await wait_for_outcome(kafka, len(sent))).enriched
        sent += await submit(kafka, prompts(5, "later"), partition=0)
        found = await wait_for_outcome(kafka, len(sent))
    assert taken(newer(found.enriched, shed)) == SEMANTIC
    assert taken(shed) == {(Taken.FALLBACK, FallbackReason.SHED), *SEMANTIC}
    last = max(one.source.offset for one in shed if one.fallback_reason is FallbackReason.SHED)
    # It ends at half of the bound, give or take what was under way.
    assert 180 <= last < 300
    assert found.positions == sorted(sent)
