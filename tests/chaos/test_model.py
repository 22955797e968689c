"""The model dies, hangs and slows down in the middle of traffic: only semantic scores are lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence

from analyzer.encoder import HashingEncoder, Vectors
from analyzer.errors import EncoderError
from schemas.prompts import Path as Taken
from schemas.prompts import SourcePosition
from schemas.settings import KafkaSettings
from tests.support.topics import (
    measured,
    outcome,
    prompt,
    publish_state,
    submit,
    wait_for_outcome,
)
from tests.support.workers import model_of, rolling, settings_of, until, working

TIMEOUT_S = 0.3


class SickEncoder(HashingEncoder):
    """A model that is well, dead, hanging or slow."""

    def __init__(self) -> None:
        super().__init__()
        self.illness = ""
        self.let_go = threading.Event()

    def encode(self, texts: Sequence[str]) -> Vectors:
        match self.illness:
            case "dead":
                raise EncoderError("killed")
            case "hanging":
                self.let_go.wait()
            case "slow":
                time.sleep(2 * TIMEOUT_S)
        return super().encode(texts)


async def test_traffic_outlives_its_model(kafka: KafkaSettings) -> None:
    """Each prompt has one result and one row, fallbacks are marked, and each illness is survived.

    The time to the first semantic result after a cure is printed; it is bounded by the breaker's
    rest, after which one batch is a probe.
    """
    encoder = SickEncoder()
    sent: list[SourcePosition] = []
    recovery_s: dict[str, float] = {}
    await publish_state(kafka, rolling())
    settings = settings_of(kafka, semantic_timeout_seconds=TIMEOUT_S, max_poll_records=16)

    async def stream(number: int) -> None:
        batch = [prompt(f"Explain subject {number}-{n}", f"p-{number}-{n}") for n in range(4)]
        sent.extend(await submit(kafka, batch))
        await asyncio.sleep(0.05)

    async def paths() -> Counter[Taken]:
        return Counter(one.path for one in (await outcome(kafka)).enriched)

    async with working(settings, lambda: model_of(encoder)) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        number = 0
        for illness in ("dead", "hanging", "slow"):
            encoder.let_go.clear()
            encoder.illness = illness
            fallbacks = (await paths())[Taken.FALLBACK]
            while (await paths())[Taken.FALLBACK] < fallbacks + 40:
                await stream(number := number + 1)
            encoder.illness = ""
            encoder.let_go.set()
            well = (await paths())[Taken.SEMANTIC]
            cured = time.monotonic()
            while (await paths())[Taken.SEMANTIC] == well:
                await stream(number := number + 1)
            recovery_s[illness] = time.monotonic() - cured
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert all((one.path is Taken.FALLBACK) == bool(one.fallback_reason) for one in found.enriched)
    assert (await measured(kafka)).positions == sorted((s.partition, s.offset) for s in sent)
    print({illness: round(seconds, 1) for illness, seconds in recovery_s.items()})
