"""Analyzer workers inside of the test's own process, with an encoder that needs no model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from analyzer.cache import EmbeddingCache
from analyzer.drift_map import drift_map
from analyzer.encoder import Encoder, HashingEncoder, Vectors
from analyzer.features import SemanticFeatures
from analyzer.semantic import Model
from analyzer.settings import AnalyzerSettings
from analyzer.worker import Worker
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState
from schemas.settings import KafkaSettings
from tests.support.processes import SOON_S

__all__ = ["HeldEncoder", "hashing_model", "model_of", "rolling", "settings_of", "until", "working"]


class HeldEncoder(HashingEncoder):
    """Does not answer before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked.set()
        self.let_go.wait()
        return super().encode(texts)


def model_of(encoder: Encoder) -> Model:
    """A model around an encoder; its reference vectors come from one that works."""
    scorer = SemanticFeatures(HashingEncoder())
    cache = EmbeddingCache(2**20, encoder.fingerprint)
    return Model(encoder, scorer, cache, drift_map(encoder, scorer.centroids))


def hashing_model() -> Model:
    """A model that needs no weights."""
    return model_of(HashingEncoder())


def settings_of(kafka: KafkaSettings, worker_id: str = "w-1", **changes: Any) -> AnalyzerSettings:
    """Settings of a worker that says quickly how it is."""
    return AnalyzerSettings(
        kafka=kafka, worker_id=worker_id, **{"heartbeat_seconds": 0.2, **changes}
    )


def rolling(revision: int = 1, *, share: float = 1.0, **changes: Any) -> RolloutState:
    """A rollout of `semantic` over `baseline`, at a share of the users."""
    return RolloutState(
        **{
            "service": "default",
            "revision": revision,
            "phase": Phase.PROGRESSING,
            "blue": Deployment(name="baseline", kind=DeploymentKind.RULES),
            "green": Deployment(name="semantic", kind=DeploymentKind.SEMANTIC),
            "rollout_id": "r-1",
            "stage": 1,
            "share": share,
            "salt": "salt",
            **changes,
        }
    )


@asynccontextmanager
async def working(
    settings: AnalyzerSettings, load: Callable[[], Model] = hashing_model
) -> AsyncIterator[Worker]:
    """A worker that runs while the block does, and is stopped in order after it.

    A worker that fails fails the block, too.
    """
    worker = Worker(settings, load)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(SOON_S):
            await task


async def until(what: str, found: Callable[[], Any], within_s: float = SOON_S) -> Any:
    """The first true value of a function or coroutine function; fails after a time."""
    last: Any = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                last = found()
                if asyncio.iscoroutine(last):
                    last = await last
                if last:
                    return last
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}; last: {last!r}") from None
