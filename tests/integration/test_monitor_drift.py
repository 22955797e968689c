"""Drift from real records, by a real monitor: an event, an alert, and their end (M3, M56)."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
import numpy as np

from driftgate.errors import Exit
from driftgate.reading import decode_control, read_all
from schemas import cloudevents
from schemas.control import AlertEvent, AlertStatus, DriftCleared, DriftDetected
from schemas.drift import DriftDirection, DriftFeature, DriftReading, DriftRules, FourierSum
from schemas.log import Command, RowFlag
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.folding import measurement, rows_of
from tests.support.monitoring import QUICK, LogWriter, as_undisturbed, ask, state_of
from tests.support.processes import Launch
from tests.support.workers import until

POLICY = msgspec.structs.replace(
    QUICK,
    stages=[msgspec.structs.replace(stage, min_seconds=3600.0) for stage in QUICK.stages],
    drift=DriftRules(learn_rows=400, clear_rows=300, average_run_length=1e6),
)
Drift = TypeVar("Drift", DriftDetected, DriftCleared)
COUNT = 16
"""Features of the map."""
ROWS = 40


class Prompts:
    """Batches of one worker without a candidate: no two prompts alike."""

    def __init__(self, log: LogWriter, revision: int, rollout_id: str | None) -> None:
        self._log, self._revision, self._rollout_id = log, revision, rollout_id
        self._rng = np.random.default_rng(1)
        self._offset = 0

    async def come(self, batches: int, *, chars: float = 80.0, towards: float = 0.0) -> None:
        """So many batches.

        Args:
            batches: of 40 rows.
            chars: median length of the prompts.
            towards: where embeddings have moved.
        """
        for _ in range(batches):
            rng, first = self._rng, self._offset
            self._offset += ROWS
            lengths = np.maximum(rng.lognormal(np.log(chars), 0.5, ROWS), 1)
            rows = rows_of(
                range(first, first + ROWS), flags=RowFlag.SEMANTIC, prompt_chars=lengths.astype(int)
            )
            angles = rng.normal(towards, 1.0, (ROWS, COUNT // 2))
            features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * (2 / COUNT) ** 0.5
            sums = features.sum(axis=0).astype("<f4").tobytes()
            batch = measurement(
                rows, service="shop", revision=self._revision, rollout_id=self._rollout_id
            )
            own = FourierSum(reference="a" * 16, rows=ROWS, sums=sums)
            await self._log.write(msgspec.structs.replace(batch, control_embeddings=own))
            await asyncio.sleep(0.02)


def test_drift_is_said_alerted_and_cleared(kafka: KafkaSettings, launch: Launch) -> None:
    """Other prompts: an event and an alert a feature, and their end; the rollout goes on (M39).

    The monitor is killed while they drift: nothing is said twice, and what was said follows from
    the log, to the byte.
    """
    monitor = launch("monitor", kafka=kafka)

    async def control(kind: type[Drift]) -> list[Drift]:
        records = await read_all(kafka, Topic.CONTROL, committed_only=False)
        return [e for e in map(decode_control, records) if isinstance(e, kind)]

    async def alerts() -> list[AlertEvent]:
        records = await read_all(kafka, Topic.ALERTS, committed_only=False)
        return [cloudevents.decode_json(record.value, AlertEvent) for record in records]

    async def run() -> None:
        nonlocal monitor
        await ask(kafka, Command.START, "shop", policy=POLICY)
        state = await state_of(kafka, "shop")
        assert state is not None
        async with LogWriter(kafka) as log:
            prompts = Prompts(log, state.revision, state.rollout_id)
            await prompts.come(60)
            assert await control(DriftDetected) == []

            async def drifted() -> bool:
                await prompts.come(5, chars=300.0, towards=1.0)
                return len(await control(DriftDetected)) == 2

            await until("both features drift", drifted)
            shown = launch("drift", "status", "--service", "shop", kafka=kafka)
            assert await asyncio.to_thread(shown.wait) == Exit.OK
            monitor.kill()
            await prompts.come(5, chars=300.0, towards=1.0)
            monitor = launch("monitor", kafka=kafka)

            async def cleared() -> bool:
                await prompts.come(5)
                return len(await control(DriftCleared)) == 2

            await until("both are as before", cleared)
        await as_undisturbed(kafka)
        state = await state_of(kafka, "shop")
        assert state is not None
        assert state.phase is Phase.PROGRESSING

    asyncio.run(run())
    both = {DriftFeature.PROMPT_LENGTH, DriftFeature.EMBEDDINGS}
    begun = {event.feature: event for event in asyncio.run(control(DriftDetected))}
    ended = asyncio.run(control(DriftCleared))
    assert set(begun) == {event.feature for event in ended} == both
    assert len(ended) == 2
    assert begun[DriftFeature.PROMPT_LENGTH].direction is DriftDirection.UP
    assert begun[DriftFeature.EMBEDDINGS].direction is DriftDirection.AWAY
    assert all(e.statistic > e.threshold and str(e.feature) in e.reason for e in begun.values())
    told = asyncio.run(alerts())
    assert {alert.rule for alert in told} == {"drift"}
    for feature in both:
        own = [alert for alert in told if alert.key == f"drift/shop/{feature}"]
        assert [alert.status for alert in own] == [AlertStatus.FIRING, AlertStatus.RESOLVED]
        assert own[0].summary == begun[feature].reason
        assert "driftgate drift calibrate" in own[0].cure
    asked = launch("drift", "status", "--service", "shop", "--json", kafka=kafka)
    assert asked.wait() == Exit.OK
    lines = [line for line in asked.log.splitlines() if line.startswith("{")]
    readings = [msgspec.json.decode(line, type=DriftReading) for line in lines]
    assert {reading.feature for reading in readings} == set(DriftFeature)
    assert all(reading.learned for reading in readings)
