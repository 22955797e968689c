"""The model's thread, and what is made of a model that misbehaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from analyzer import semantic
from analyzer.encoder import HashingEncoder, Vectors
from analyzer.errors import ModelError
from analyzer.faults import FaultFile
from analyzer.semantic import Model, ModelThread, SemanticEngine, SemanticFailure
from schemas.log import ModelState
from schemas.prompts import FallbackReason, PromptSubmitted
from tests.support.workers import hashing_model, model_of

PROMPTS = [PromptSubmitted(prompt=f"Explain subject number {n}") for n in range(3)]


class CountingEncoder(HashingEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scale = 1.0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        with np.errstate(all="ignore"):
            return super().encode(texts) * np.float32(self.scale)


async def ready(load: object = hashing_model, timeout_s: float = 5.0) -> SemanticEngine:
    engine = SemanticEngine(load, timeout_s, FaultFile(None))  # type: ignore[arg-type]
    await engine.keep_loaded()
    return engine


async def test_thread_hands_back_results_and_errors() -> None:
    """Calls run one after the other; what they return or raise comes back to who waits."""
    thread = ModelThread()
    first = thread.call(lambda: threading.current_thread().name)
    second = thread.call(lambda: 1 // 0)
    assert thread.busy
    assert await first == "model"
    with pytest.raises(ZeroDivisionError):
        await second
    assert not thread.busy


async def test_thread_is_busy_with_what_nobody_waits_for() -> None:
    """A call that was given up still keeps the thread, until it comes back."""
    thread, let_go = ModelThread(), threading.Event()
    call = thread.call(let_go.wait)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.01)
    assert thread.busy
    let_go.set()
    assert await thread.call(lambda: "next") == "next"
    assert not thread.busy


def test_thread_outlives_its_loop() -> None:
    """A call that ends after its event loop hurts nobody, and the next loop can use the thread."""
    let_go = threading.Event()
    thread: list[ModelThread] = []

    async def leave() -> None:
        thread.append(ModelThread())
        thread[0].call(let_go.wait)

    asyncio.run(leave())
    let_go.set()

    async def come_back() -> str:
        return await thread[0].call(lambda: "works")

    assert asyncio.run(come_back()) == "works"


async def test_engine_scores_in_order_and_remembers() -> None:
    """Scores come in the order of the prompts; a text is embedded once, also within a batch."""
    encoder = CountingEncoder()
    engine = await ready(lambda: model_of(encoder))
    assert engine.state is ModelState.READY
    found = await engine.score("semantic", [*PROMPTS, PROMPTS[0]])
    again = await engine.score("semantic", [*PROMPTS, PROMPTS[0]])
    assert len(encoder.texts) == len(set(encoder.texts))
    assert [one.cache_hit for one in found.scores] == [False] * 4
    assert [one.cache_hit for one in again.scores] == [True] * 4
    assert [one.overall for one in again.scores] == [one.overall for one in found.scores]
    assert found.scores[0] == found.scores[3]
    assert found.semantic_seconds >= found.embed_seconds > 0


async def test_no_prompts_need_no_model_time() -> None:
    """An empty batch has no scores, and asks the encoder for nothing."""
    encoder = CountingEncoder()
    engine = await ready(lambda: model_of(encoder))
    assert (await engine.score("semantic", [])).scores == []
    assert encoder.texts == []


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, 2.0])
async def test_vector_that_is_none_is_not_remembered(scale: float) -> None:
    """A bad vector fails its batch, and its text is embedded anew the next time."""
    encoder = CountingEncoder()
    engine = await ready(lambda: model_of(encoder))
    encoder.scale = scale
    with pytest.raises(SemanticFailure) as caught:
        await engine.score("semantic", PROMPTS)
    assert caught.value.reason is FallbackReason.INVALID_VECTOR
    encoder.scale = 1.0
    assert [one.cache_hit for one in (await engine.score("semantic", PROMPTS)).scores] == [
        False
    ] * 3


async def test_model_that_is_loading_is_unavailable() -> None:
    """Before the model is there, the failure says that it is loading."""
    engine = SemanticEngine(hashing_model, 5.0, FaultFile(None))
    with pytest.raises(SemanticFailure, match="loading") as caught:
        await engine.score("semantic", PROMPTS)
    assert caught.value.reason is FallbackReason.MODEL_UNAVAILABLE


async def test_loading_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library raises, the next attempt comes, and the state tells."""
    monkeypatch.setattr(semantic, "RELOAD_SECONDS", 0.0)
    errors: list[Exception] = [ModelError("none"), OSError("disk"), RuntimeError("torch")]
    states: list[ModelState] = []

    def load() -> Model:
        states.append(engine.state)
        if errors:
            raise errors.pop(0)
        return hashing_model()

    engine = SemanticEngine(load, 5.0, FaultFile(None))
    await engine.keep_loaded()
    assert engine.state is ModelState.READY
    assert states == [ModelState.LOADING, *[ModelState.UNAVAILABLE] * 3]


async def test_injected_fault_is_an_encoder_error(tmp_path: Path) -> None:
    """A fault of a rehearsal fails as a broken encoder does, and only its own deployment (M70)."""
    file = tmp_path / "faults.json"
    file.write_text('{"deployment": "semantic", "error_rate": 1.0}')
    engine = SemanticEngine(hashing_model, 5.0, FaultFile(file))
    await engine.keep_loaded()
    with pytest.raises(SemanticFailure) as caught:
        await engine.score("semantic", PROMPTS)
    assert caught.value.reason is FallbackReason.ENCODER_ERROR
    assert len((await engine.score("other", PROMPTS)).scores) == 3


async def test_a_deployment_that_keeps_failing_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After five failures green is not asked any more, blue still is; then one probe, and back."""
    monkeypatch.setattr(semantic, "BREAKER_RESET_SECONDS", 0.3)
    faults = tmp_path / "faults.json"
    faults.write_text('{"deployment": "green", "error_rate": 1.0}')
    engine = SemanticEngine(hashing_model, 5.0, FaultFile(faults))
    await engine.keep_loaded()

    async def reason(deployment: str) -> FallbackReason | None:
        try:
            await engine.score(deployment, PROMPTS)
        except SemanticFailure as failure:
            return failure.reason
        return None

    found = [await reason("green") for _ in range(7)]
    assert found == [FallbackReason.ENCODER_ERROR] * 5 + [FallbackReason.CIRCUIT_OPEN] * 2
    assert await reason("blue") is None
    await asyncio.sleep(0.4)
    # The probe fails, and the circuit is open again at once.
    assert [await reason("green") for _ in range(2)] == [
        FallbackReason.ENCODER_ERROR,
        FallbackReason.CIRCUIT_OPEN,
    ]
    faults.unlink()
    await asyncio.sleep(0.4)
    assert [await reason("green") for _ in range(3)] == [None, None, None]
