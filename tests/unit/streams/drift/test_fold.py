"""Drift in the fold: what is found, said and alerted, however batches come (M18, M39)."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.control import AlertEvent, AlertStatus, DriftCleared, DriftDetected, GateStatus
from schemas.drift import DriftArm, DriftDirection, DriftFeature, DriftRules, FourierSum
from schemas.log import RowFlag
from schemas.rollout import Phase
from streams.fold import LOOK_MS, step
from streams.state import new_state, restore, snapshot
from tests.support.folding import SERVICE, T0_MS, Story, measurement, of_type, policy, rows_of, said

COUNT = 16
"""Features of the map in these stories."""
SOON = LOOK_MS / 1000 / 10
RULES = DriftRules(learn_rows=400, clear_rows=300, average_run_length=1e6)


class Drifting(Story):
    """A service whose prompts are like real ones: no two alike."""

    def __init__(self, rules: DriftRules = RULES, seed: int = 0) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.start(policy(drift=rules, min_seconds=9_000.0, max_seconds=90_000.0))
        self._next = 0

    def come(
        self,
        rows: int,
        *,
        chars: float = 80.0,
        towards: float = 0.0,
        reference: str = "a" * 16,
        first: int | None = None,
        **columns: Any,
    ) -> None:
        """A batch of the control arm, with the sums of its embeddings.

        Args:
            rows: of the batch.
            chars: median length.
            towards: where embeddings have moved, in radians of every feature's angle.
            reference: whose map they are measured with.
            first: source offset, if not the next one.
            columns: of the rows, other than the good ones.
        """
        first = self._next if first is None else first
        self._next = first + rows
        made = rows_of(
            range(first, first + rows),
            prompt_chars=np.maximum(self.rng.lognormal(np.log(chars), 0.5, rows), 1).astype(int),
            **{"flags": RowFlag.SEMANTIC, **columns},
        )
        angles = self.rng.normal(towards, 1.0, (rows, COUNT // 2))
        features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * (2 / COUNT) ** 0.5
        sums = features.sum(axis=0).astype("<f4").tobytes()
        batch = measurement(made, revision=self.state.rollout.revision)
        self.record(
            msgspec.structs.replace(
                batch,
                rollout_id=self.state.rollout.rollout_id,
                control_embeddings=FourierSum(reference=reference, rows=rows, sums=sums),
            )
        )

    def some(self, batches: int, *, rows: int = 20, apart_s: float = 0.1, **details: Any) -> None:
        """Several batches."""
        for _ in range(batches):
            self.after(apart_s).come(rows, **details)

    @property
    def found(self) -> list[str]:
        """Features whose drift was said, in this order."""
        return [event.feature for event in of_type(self.outputs, DriftDetected)]


def test_quiet_prompts_say_nothing() -> None:
    """20,000 prompts as they always were: neither an event nor an alert."""
    story = Drifting()
    story.some(1000)
    assert story.found == []
    assert of_type(story.outputs, AlertEvent) == []
    readings = of_type(story.outputs, GateStatus)[-1].drift
    assert {r.feature for r in readings} == set(DriftFeature)
    assert not any(r.drifting for r in readings)


def test_longer_prompts_are_said_alerted_and_cleared() -> None:
    """One event and one alert an episode; both end when prompts are as before."""
    story = Drifting()
    story.some(100)
    story.some(60, chars=300.0)
    assert story.found == [DriftFeature.PROMPT_LENGTH]
    (event,) = of_type(story.outputs, DriftDetected)
    assert (event.direction, event.reference) == (DriftDirection.UP, None)
    assert event.statistic > event.threshold
    assert event.first_offset < event.last_offset <= story.state.last_offset
    (alert,) = of_type(story.outputs, AlertEvent)
    assert (alert.key, alert.status) == (f"drift/{SERVICE}/prompt_length", AlertStatus.FIRING)
    assert alert.summary == event.reason
    story.some(60)
    (cleared,) = of_type(story.outputs, DriftCleared)
    assert cleared.feature is DriftFeature.PROMPT_LENGTH
    assert of_type(story.outputs, AlertEvent)[-1].status is AlertStatus.RESOLVED


def test_drift_never_takes_a_rollout_back() -> None:
    """Prompts of another kind are a reason to look, not one to go back to blue (M39)."""
    story = Drifting()
    story.some(100)
    story.some(100, chars=900.0, towards=1.5)
    assert set(story.found) == {DriftFeature.PROMPT_LENGTH, DriftFeature.EMBEDDINGS}
    assert story.state.rollout.phase is Phase.PROGRESSING


def test_another_topic_is_seen_by_its_embeddings_alone() -> None:
    """All scores are as before; where the vectors lie is not."""
    story = Drifting()
    story.some(100)
    story.some(60, towards=0.8)
    assert story.found == [DriftFeature.EMBEDDINGS]


def test_fallbacks_are_seen() -> None:
    """A model that fails for every fifth prompt."""
    story = Drifting()
    story.some(100)
    flags = np.where(np.arange(20) < 4, RowFlag.FALLBACK, RowFlag.SEMANTIC)
    story.some(100, flags=flags)
    assert DriftFeature.FALLBACK in story.found


def test_only_the_arm_that_is_watched_counts() -> None:
    """Rules for the candidate do not look at the control's prompts."""
    story = Drifting(msgspec.structs.replace(RULES, arm=DriftArm.CANDIDATE))
    story.some(100)
    story.some(100, chars=900.0, towards=1.5)
    assert story.found == []


def test_a_restart_changes_nothing() -> None:
    """Snapshots at any record: the same alarms at the same offsets, to the byte."""
    story = Drifting()
    story.some(60)
    story.some(20, apart_s=SOON)
    story.some(50, chars=300.0, towards=0.8)
    story.some(40)
    assert len(story.found) == 2
    state, outputs = new_state(SERVICE), []
    for number, entry in enumerate(story.entries):
        if number % 7 == 0:
            state = restore(snapshot(state))
        outputs += step(state, entry)
    assert said(outputs) == said(story.outputs)
    assert snapshot(state) == snapshot(story.state)


def test_batches_that_are_counted_together_are_all_in_the_sum() -> None:
    """How often somebody looks does not change what the embeddings are."""
    rules = msgspec.structs.replace(RULES, learn_rows=10_000)
    apart, together = Drifting(rules), Drifting(rules)
    apart.some(40)
    together.some(40, apart_s=SOON)
    together.after(1).tick()
    sums = []
    for story in (apart, together):
        assert story.state.drift is not None
        assert story.state.drift.embeddings is not None
        learning = story.state.drift.embeddings.learning
        assert learning is not None
        assert sum(learning.counts) == 800
        sums.append(np.sum(learning.sums, axis=0))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-12)


def test_sums_of_other_maps_are_not_added() -> None:
    """Two workers with different models in one moment: each batch is looked at by itself."""
    story = Drifting()
    story.some(30)
    story.after(SOON).come(20)
    assert len(story.state.pending) == 1
    story.after(SOON).come(20, reference="b" * 16)
    assert len(story.state.pending) == 1
    story.after(1).tick()
    assert story.state.drift is not None
    assert story.state.drift.map.foreign_rows == 20
    assert story.state.measured == 640


def test_a_whole_fleet_with_another_map_is_learned_anew() -> None:
    """After a new model nobody measures as before: the watch follows, and alarms again."""
    story = Drifting()
    story.some(60)
    story.some(60, reference="b" * 16, towards=2.0)
    assert story.state.drift is not None
    assert story.state.drift.map.id == "b" * 16
    assert story.found == []
    story.some(80, reference="b" * 16, towards=2.8)
    assert story.found == [DriftFeature.EMBEDDINGS]


def test_a_batch_that_was_partly_counted_gives_no_sum() -> None:
    """A sum cannot be divided: rows that come again would be in it twice."""
    story = Drifting()
    story.some(1)
    assert story.state.drift is not None
    embeddings = story.state.drift.embeddings
    assert embeddings is not None
    assert embeddings.learning is not None
    story.after(1).come(20, first=10)
    assert (story.state.measured, story.state.repeated) == (30, 10)
    assert embeddings.learning.counts == [20]
    story.after(1).come(20)
    assert sum(embeddings.learning.counts) == 40


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sums": b""}, "bytes are no float32"),
        ({"sums": b"12345"}, "bytes are no float32"),
        ({"sums": np.full(COUNT, np.nan, "<f4").tobytes()}, "a value beyond"),
        ({"sums": np.full(COUNT, 1e9, "<f4").tobytes()}, "a value beyond"),
        ({"rows": 21}, "of 21 rows in a batch of 20"),
    ],
)
def test_sums_that_cannot_be_are_refused_alone(change: dict[str, Any], why: str) -> None:
    """Their batch does not count, is named, and holds up none that came with it."""
    story = Drifting()
    story.some(1)
    story.after(SOON).come(20)
    assert story.state.pending
    good = story.state.pending[0].batch
    assert good.control_embeddings is not None
    bad = msgspec.structs.replace(
        good,
        offset=np.arange(900, 920, dtype="<i8").tobytes(),
        control_embeddings=msgspec.structs.replace(good.control_embeddings, **change),
    )
    story.after(SOON).record(bad)
    story.after(1).tick()
    assert (story.state.measured, story.state.undecodable) == (40, 1)
    (alert,) = of_type(story.outputs, AlertEvent)
    assert why in alert.summary


def test_prompts_drift_without_a_rollout_too() -> None:
    """What is watched is the traffic, not a candidate."""
    story = Drifting()
    story.state.rollout = msgspec.structs.replace(story.state.rollout, phase=Phase.IDLE)
    story.state.watch = None
    story.some(100)
    story.some(60, chars=300.0)
    assert story.found == [DriftFeature.PROMPT_LENGTH]


def test_time_is_not_looked_at() -> None:
    """The same rows a day later, or in one second: the same findings."""
    stories = [Drifting(), Drifting()]
    for story, apart_s in zip(stories, (0.1, 30.0), strict=True):
        story.some(60, apart_s=apart_s)
        story.some(60, chars=300.0, apart_s=apart_s)
    assert stories[0].found == stories[1].found == [DriftFeature.PROMPT_LENGTH]
    assert stories[1].now_ms - T0_MS > 3_000_000
