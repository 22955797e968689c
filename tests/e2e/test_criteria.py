"""Every gate and rollback criterion of the mission, each by a real monitor on a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np

from driftgate.reading import decode_control, read_all
from schemas.control import ControlEvent, RollbackConfirmed, RolloutPaused, RolloutPromoted
from schemas.feedback_batch import FeedbackFlag
from schemas.log import Command, ModelState, RowFlag
from schemas.policy import Gate, Policy, Stage, Windows, default_policy
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.folding import policy
from tests.support.monitoring import Traffic, as_undisturbed, ask
from tests.support.processes import Launch
from tests.support.workers import until

GOOD = RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT
BAD = np.where(np.arange(40) % 8 == 0, RowFlag.FALLBACK, GOOD)
OURS = np.where(np.arange(40) % 8 == 0, RowFlag.REJECTED | RowFlag.SYSTEM_ERROR, GOOD)
SLOW = np.linspace(0.7, 0.9, 40)
SLOWER = np.linspace(0.3, 0.4, 40)

CRITERIA: dict[str, tuple[str, dict[str, Any]]] = {
    "m32": ("latency-p95", {"candidate": {"processing_seconds": SLOW}}),
    "m33": ("system-errors", {"candidate": {"flags": OURS}}),
    "m34": ("semantic-errors", {"candidate": {"flags": BAD}}),
    "m35": ("cache-hits", {"candidate": {"flags": RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP}}),
    "m36": ("coherence", {"candidate": {"coherence": 0.5}}),
    "m37": ("relevance", {"candidate": {"relevance": 0.4}}),
    "m73": ("latency-vs-control", {"candidate": {"processing_seconds": SLOWER}}),
    "m74-score": ("score-vs-control", {"candidate": {"score": 0.52}}),
    "m74-labels": ("accuracy", {"ratings": {FeedbackFlag.EXPERT_LABEL: (0.8, 0.6)}}),
    "m75": ("errors-sustained", {"candidate": {"flags": BAD}}),
    "m76-crashes": ("crashes", {"beat": {"incarnation": lambda turn: str(turn // 8)}}),
    "m76-model": ("model-available", {"beat": {"model": ModelState.UNAVAILABLE}}),
    "m76-memory": ("memory", {"beat": {"rss_mb": lambda turn: 300.0 + 3.0 * turn}}),
    "m77": ("satisfaction", {"ratings": {FeedbackFlag.USER_RATING: (0.8, 0.5)}}),
}
"""By mission line: the gate of the default policy that must find it, and what is wrong."""

ENDS = (RollbackConfirmed, RolloutPaused, RolloutPromoted)

FASTER: dict[str, dict[str, Any]] = {
    "errors-sustained": {"sustained_seconds": 3.0},
    "cache-hits": {"warmup_seconds": 0.0},
    "crashes": {"min_samples": 1},
    "model-available": {"min_samples": 1, "objective": "<= 2"},
    "memory": {"min_samples": 10, "warmup_seconds": 0.0},
}


def quick(line: str, gate_name: str | None) -> Policy:
    """The default policy's gates, in seconds instead of minutes.

    What must last is tested without the gates that find the same at once.
    """
    gates: list[Gate] = [
        msgspec.structs.replace(g, **{"min_samples": 100} | FASTER.get(g.name, {}))
        for g in default_policy().gates
        if not (line == "m75" and g.name in ("semantic-errors", "system-errors"))
    ]
    last_s = 3600.0 if gate_name else 1.0
    return policy(
        *gates,
        stages=[
            Stage(percent=0.0, shadow_percent=25.0, min_seconds=1.0),
            Stage(percent=25.0, min_seconds=last_s),
            Stage(percent=50.0, min_seconds=last_s),
            Stage(percent=100.0, min_seconds=last_s),
        ],
        windows=Windows(pane_seconds=0.5, hop_seconds=1.0, window_seconds=2.0),
        confirm_seconds=20.0,
    )


def test_each_criterion_of_the_mission_is_acted_on(kafka: KafkaSettings, launch: Launch) -> None:
    """M32-M37 and M73-M77: a service a line, in which one thing goes wrong at 25 %.

    Guardrails roll back, and all workers confirm; the cache's signal pauses (M35). A service in
    which nothing is wrong goes through all stages (M31, M38, M39). Everything that the monitor said
    follows from its log.
    """
    launch("monitor", kafka=kafka)

    async def tell(line: str) -> list[ControlEvent]:
        gate_name, harm = CRITERIA.get(line, (None, {}))
        traffic = Traffic(kafka, line)
        async with traffic.flowing():
            await ask(kafka, Command.START, line, policy=quick(line, gate_name))
            if gate_name:
                await traffic.until_stage(1)
            for name, value in harm.items():
                setattr(traffic, name, value)

            async def ended() -> bool:
                return any(isinstance(e, ENDS) for e in await events_of(line))

            await until(f"{line} is decided", ended, within_s=120)
        return await events_of(line)

    async def events_of(line: str) -> list[ControlEvent]:
        records = await read_all(kafka, Topic.CONTROL, committed_only=False)
        return [decode_control(r) for r in records if r.key == line.encode()]

    async def run() -> dict[str, list[ControlEvent]]:
        told = {}
        # A few at a time: each service is one of hundreds of rows a second.
        names = ["healthy", *CRITERIA]
        for first in range(0, len(names), 5):
            group = names[first : first + 5]
            told |= dict(zip(group, await asyncio.gather(*map(tell, group)), strict=True))
        await as_undisturbed(kafka)
        return told

    told = asyncio.run(run())
    lines = {line: gate_name for line, (gate_name, _) in CRITERIA.items()}
    last = {line: events[-1] for line, events in told.items()}
    assert isinstance(last.pop("healthy"), RolloutPromoted)
    paused = last.pop("m35")
    assert isinstance(paused, RolloutPaused)
    assert paused.gate is not None
    assert paused.gate.gate == lines.pop("m35")
    assert {type(event) for event in last.values()} == {RollbackConfirmed}
    acted = {
        line: next(e.gate.gate for e in told[line] if e.__struct_config__.tag == "gate.breached")  # type: ignore[union-attr]
        for line in last
    }
    assert acted == lines
