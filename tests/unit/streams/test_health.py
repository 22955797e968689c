"""Gates on the analyzers: crash loops, memory that grows, a model that is away (M22, M23, M76)."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.control import GateStatus, RolloutAdvanced, RolloutRolledBack, Verdict
from schemas.log import Command, ModelState
from schemas.policy import Metric
from streams.health import MEMORY_POINTS, FleetHealth, MemoryLine
from tests.support.folding import Story, gate, heartbeat, of_type, policy


def rolling(*names: str) -> Story:
    """A rollout at 25 % whose only gates are these of the default policy."""
    story = Story()
    gates = [gate(name) for name in names]
    story.start(policy(*gates, min_seconds=80_000.0, max_seconds=86_400.0))
    story.command(Command.PROMOTE)
    return story


def rollback(story: Story) -> RolloutRolledBack | None:
    """The rollback, if there was one."""
    return next(iter(of_type(story.outputs, RolloutRolledBack)), None)


def test_a_crash_loop_rolls_back() -> None:
    """Each start without a goodbye is a crash; the third is one too many."""
    story = rolling("crashes")
    for start in range(3):
        story.after(2).beat("w1", incarnation=f"{start}")
    assert rollback(story) is None
    story.after(2).beat("w1", incarnation="3")
    event = rollback(story)
    assert event is not None
    assert event.gate is not None
    assert (event.gate.gate, event.gate.verdict) == ("crashes", Verdict.FAILED)
    assert "worker_crashes count <= 2: failed: 3 in this stage" in event.reason


def test_a_worker_that_falls_silent_is_a_crash_once() -> None:
    """Lost, and back as another start: that is one crash, not two."""
    story = rolling("crashes")
    for start in range(3):
        assert rollback(story) is None
        story.beat("w1", incarnation=f"{start}")
        story.silence(6)
    event = rollback(story)
    assert event is not None
    assert "failed: 3 in this stage" in event.reason


def test_an_orderly_restart_is_no_crash() -> None:
    """A deployment of new workers is not held against green."""
    story = rolling("crashes")
    for start in range(10):
        story.after(1).beat("w1", incarnation=f"{start}")
        story.after(1).beat("w1", incarnation=f"{start}", leaving=True)
    assert story.state.watch is not None
    assert story.state.watch.health.crashes == 0


def test_a_broker_that_was_away_is_no_crash() -> None:
    """After a gap in the log every worker has its time to be heard of again."""
    story = rolling("crashes")
    for _ in range(5):
        for worker in "abcd":
            story.beat(worker)
        story.after(600).tick()
    assert story.state.watch is not None
    assert story.state.watch.health.crashes == 0


def test_a_model_that_stays_away_rolls_back() -> None:
    """A minute without a model is the limit; loading is not being away."""
    story = rolling("model-available")
    for _ in range(100):
        story.after(1).beat("w1", model=ModelState.LOADING)
    for _ in range(60):
        story.after(1).beat("w1", model=ModelState.UNAVAILABLE)
    assert rollback(story) is None
    for _ in range(3):
        story.after(1).beat("w1", model=ModelState.UNAVAILABLE)
    event = rollback(story)
    assert event is not None
    assert event.gate is not None
    assert event.gate.gate == "model-available"


@pytest.mark.parametrize(("mb_per_hour", "broken"), [(0.0, False), (200.0, False), (1500.0, True)])
def test_memory_that_grows_rolls_back(mb_per_hour: float, broken: bool) -> None:
    """A leak is found through the noise of garbage that comes and goes, and noise is no leak."""
    rng = np.random.default_rng(5)
    story = rolling("memory")
    for second in range(1500):
        garbage = 80.0 * rng.random() + (150.0 if second % 50 == 0 else 0.0)
        story.after(1).beat("w1", rss_mb=300.0 + garbage + mb_per_hour * second / 3600)
    event = rollback(story)
    assert (event is not None) is broken
    if event is not None and event.gate is not None:
        assert event.gate.gate == "memory"
        assert event.gate.samples >= 120


def test_a_cache_that_fills_is_no_leak() -> None:
    """What grows within the warm-up does not count."""
    story = rolling("memory")
    for second in range(600):
        story.after(1).beat("w1", rss_mb=100.0 + min(second, 100) * 5.0)
    assert rollback(story) is None


def test_each_stage_counts_anew() -> None:
    """Two crashes in one stage and two in the next are no third one."""
    story = rolling("crashes")
    for start in range(3):
        story.after(1).beat("w1", incarnation=f"{start}")
    story.command(Command.PROMOTE)
    for start in range(3, 5):
        story.after(1).beat("w1", incarnation=f"{start}")
    assert rollback(story) is None


def test_a_rollout_waits_for_heartbeats() -> None:
    """No data is no success: without a heartbeat the gates on analyzers hold nothing to be true."""
    story = Story()
    story.start(policy(gate("crashes"), gate("semantic-errors"), min_seconds=10.0))
    story.after(11).measure(300, 300)
    assert not of_type(story.outputs, RolloutAdvanced)
    story.after(1).beat("w1")
    assert len(of_type(story.outputs, RolloutAdvanced)) == 1


def test_they_are_reported_like_any_gate() -> None:
    """Value, limit and heartbeats; no bounds, since nothing is estimated."""
    story = rolling("crashes", "memory")
    for _ in range(3):
        story.after(1).beat("w1")
    story.after(3).tick()
    crashes, memory, split = of_type(story.outputs, GateStatus)[-1].gates
    assert split.gate == "sample-ratio"
    assert (crashes.verdict, crashes.value, crashes.limit) == (Verdict.SUCCESSFUL, 0.0, 2.0)
    assert (crashes.samples, crashes.lower) == (3, None)
    assert (memory.verdict, memory.reason) == (Verdict.INCONCLUSIVE, "0 of 120 heartbeats")


def test_a_line_stays_small_and_true() -> None:
    """After a day of beats there are as many points as ever, and the slope is still known."""
    line = MemoryLine(incarnation="a")
    for second in range(86_400):
        line.add(second * 1000, 300.0 + second / 864)
    assert len(line.at_ms) <= MEMORY_POINTS
    assert line.beats == 86_400
    assert line.growth_mb == pytest.approx(100.0, rel=0.05)


def test_beats_of_one_moment_are_no_slope() -> None:
    """Log time may stand still."""
    line = MemoryLine(incarnation="a")
    for _ in range(20):
        line.add(1000, 300.0)
    assert line.growth_mb == 0.0


def test_the_worst_worker_counts() -> None:
    """Memory and models are of each worker; the line of a new start begins anew."""
    health = FleetHealth()
    for second in range(100):
        for name, rate in (("good", 0.0), ("bad", 3.0)):
            beat = heartbeat(name, rss_mb=300.0 + rate * second)
            health.heard(beat, second * 1000)
            health.weighed(beat, second * 1000)
    grown, beats = health.value(Metric.MEMORY_GROWTH_MB, 100_000)
    assert grown == pytest.approx(297, abs=10)
    assert beats == 100
    health.weighed(heartbeat("bad", incarnation="again", rss_mb=600.0), 101_000)
    assert health.value(Metric.MEMORY_GROWTH_MB, 101_000)[0] < 1.0
    health.gone("good")
    assert list(health.memory) == ["bad"]


def test_only_health_has_a_value_here() -> None:
    """A metric of prompts asked of the fleet is a mistake of ours."""
    with pytest.raises(ValueError, match="no metric of health"):
        FleetHealth().value(Metric.SCORE, 0)
