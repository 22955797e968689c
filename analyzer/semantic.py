"""The semantic half of a worker: loads the model and runs it beside the event loop.

Everything that can go wrong here costs a prompt its semantic scores and nothing else (M64, M65):
the caller gets a :class:`SemanticFailure` with the reason and serves the rules result.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from circuitbreaker import CircuitBreaker  # type: ignore[import-untyped]

from analyzer.cache import EmbeddingCache
from analyzer.drift_map import DriftMap
from analyzer.encoder import Encoder
from analyzer.faults import FaultFile, strike, worsened
from analyzer.fourier import FourierRow
from schemas.log import ModelState
from schemas.prompts import FallbackReason, PromptSubmitted, SemanticScores

__all__ = ["Model", "ModelThread", "Scorer", "SemanticEngine", "SemanticFailure", "SemanticResult"]

log = logging.getLogger("driftgate.analyzer")
T = TypeVar("T")
Vector = npt.NDArray[np.float32]

_UNIT_TOLERANCE = 1e-2
"""Of a squared norm: wider than rounding in 16 bits, narrower than any other mistake."""
BREAKER_FAILURES = 5
"""Batches that fail in a row before the semantic half is left alone: fewer and one bad prompt would
open it, more and each of them costs its time-out."""
BREAKER_RESET_SECONDS = 10.0
"""How long it is left alone; then one batch is a probe."""
RELOAD_SECONDS = 30.0
"""Between two attempts to load a model that could not be loaded."""


class SemanticFailure(Exception):
    """Why there are no semantic scores for a batch."""

    def __init__(self, reason: FallbackReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Scorer(Protocol):
    """Turns vectors into scores, see :class:`analyzer.features.SemanticFeatures`."""

    def texts_to_embed(self, prompt: PromptSubmitted) -> list[str]:
        """The texts whose vectors a prompt's scores are made of; the prompt's own first."""

    def score_prompts(
        self,
        prompts: Sequence[PromptSubmitted],
        vectors: Sequence[Sequence[Vector]],
        cache_hits: Sequence[bool],
    ) -> list[SemanticScores]:
        """The scores of prompts from those texts' vectors."""


class Model(NamedTuple):
    """What is needed to compute."""

    encoder: Encoder
    scorer: Scorer
    cache: EmbeddingCache
    drift: DriftMap | None = None
    """Without it, nothing is said of how embeddings are distributed."""


class SemanticResult(NamedTuple):
    """The scores of a batch, in the order of its prompts, and what they took in seconds."""

    scores: list[SemanticScores]
    embed_seconds: float
    semantic_seconds: float
    fourier: Sequence[FourierRow | None]
    """Of the prompts' own vectors, where drift is measured."""


class ModelThread:
    """A daemon thread that runs one call at a time.

    An executor of the standard library is waited for at exit, so a model that hangs would keep the
    worker from ever stopping.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._pending = 0
        threading.Thread(target=self._run, name="model", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a call is running or waiting, even one that nobody waits for any more."""
        return self._pending > 0

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function there; its result or error comes back on this event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._pending -= 1
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T, where there is no error

        def run() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as caught:  # noqa: BLE001 - handed to whoever waits
                error = caught
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._pending += 1
        self._calls.put(run)
        return future

    def _run(self) -> None:
        while True:
            self._calls.get()()


class SemanticEngine:
    """Scores batches of prompts with a model that may be missing, slow or broken.

    Args:
        load: builds the model; runs in the model's thread.
        timeout_seconds: for a batch.
        faults: for rehearsals.
    """

    def __init__(
        self, load: Callable[[], Model], timeout_seconds: float, faults: FaultFile
    ) -> None:
        self._load = load
        self._timeout_s = timeout_seconds
        self._faults = faults
        self._thread = ModelThread()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._model: Model | None = None
        self.state = ModelState.LOADING
        self.tried = asyncio.Event()
        """Set when the model is there, or the first attempt to load it has failed."""

    @property
    def model(self) -> Model | None:
        """The model, once it is loaded."""
        return self._model

    async def keep_loaded(self) -> None:
        """Load the model, trying again for as long as it cannot be had."""
        while self._model is None:
            started = time.monotonic()
            try:
                self._model = await self._thread.call(self._load)
            except Exception as error:  # noqa: BLE001 - whatever a model library throws
                self.state = ModelState.UNAVAILABLE
                self.tried.set()
                log.error(
                    "the model cannot be loaded, serving rules results; trying again in %.0f s: %s",
                    RELOAD_SECONDS,
                    error,
                )
                await asyncio.sleep(RELOAD_SECONDS)
            else:
                self.state = ModelState.READY
                self.tried.set()
                log.info(
                    "model ready after %.1f s: %s",
                    time.monotonic() - started,
                    self._model.encoder.name,
                )

    async def score(self, deployment: str, prompts: Sequence[PromptSubmitted]) -> SemanticResult:
        """The scores of a batch.

        Raises:
            SemanticFailure: there are none; serve the rules result.
        """
        model = self._model
        if model is None:
            raise SemanticFailure(FallbackReason.MODEL_UNAVAILABLE, f"the model is {self.state}")
        if self._thread.busy:
            raise SemanticFailure(
                FallbackReason.BUSY, "the model has not come back from an earlier batch"
            )
        breaker = self._breaker(deployment)
        if breaker.opened:
            raise SemanticFailure(
                FallbackReason.CIRCUIT_OPEN,
                f"{BREAKER_FAILURES} batches of {deployment!r} failed in a row",
            )
        try:
            with breaker:
                call = self._thread.call(lambda: self._score(model, deployment, prompts))
                return await asyncio.wait_for(call, self._timeout_s)
        except TimeoutError as error:
            raise SemanticFailure(
                FallbackReason.TIMEOUT, f"no answer within {self._timeout_s:g} s"
            ) from error
        except SemanticFailure:
            raise
        except Exception as error:
            raise SemanticFailure(
                FallbackReason.ENCODER_ERROR, f"{type(error).__name__}: {error}"
            ) from error

    def _breaker(self, deployment: str) -> CircuitBreaker:
        """A deployment's own: a green that is broken leaves a blue that works alone."""
        if deployment not in self._breakers:
            self._breakers[deployment] = CircuitBreaker(BREAKER_FAILURES, BREAKER_RESET_SECONDS)
        return self._breakers[deployment]

    def _score(
        self, model: Model, deployment: str, prompts: Sequence[PromptSubmitted]
    ) -> SemanticResult:
        started = time.perf_counter()
        faults = self._faults.current(deployment)
        strike(faults)
        texts = [model.scorer.texts_to_embed(prompt) for prompt in prompts]
        wanted = list(dict.fromkeys(text for several in texts for text in several))
        known: dict[str, Vector] = {
            text: vector
            for text, vector in zip(wanted, model.cache.get(wanted), strict=True)
            if vector is not None
        }
        missing = [text for text in wanted if text not in known]
        computed = set(missing)
        if missing:
            vectors = model.encoder.encode(missing)
            # Before they are remembered: a bad vector would come back with its text.
            _check_vectors(vectors, (len(missing), model.encoder.dimension))
            model.cache.put(missing, vectors)
            known.update(zip(missing, vectors, strict=True))
        embedded = time.perf_counter()
        scored = model.scorer.score_prompts(
            prompts,
            [[known[text] for text in several] for several in texts],
            [several[0] not in computed for several in texts],
        )
        scores = [worsened(one, faults) for one in scored]
        own = [known[several[0]] for several in texts]
        fourier = model.drift.rows(own) if model.drift is not None else [None] * len(own)
        done = time.perf_counter()
        return SemanticResult(scores, embedded - started, done - started, fourier)


def _check_vectors(vectors: Vector, shape: tuple[int, int]) -> None:
    if vectors.shape != shape:
        raise SemanticFailure(
            FallbackReason.INVALID_VECTOR, f"the encoder returned {vectors.shape} for {shape}"
        )
    squares = np.einsum("ij,ij->i", vectors, vectors)
    # A comparison with NaN is false, so this also finds what is not finite.
    if not (np.abs(squares - 1.0) <= _UNIT_TOLERANCE).all():
        raise SemanticFailure(
            FallbackReason.INVALID_VECTOR,
            f"the encoder returned squared norms from {squares.min():g} to {squares.max():g}",
        )
