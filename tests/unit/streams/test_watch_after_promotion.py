"""What was promoted is watched on, against what the control arm was like (M40, M46, M72)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.control import (
    AlertEvent,
    GateBreached,
    GateStatus,
    RollbackConfirmed,
    RolloutPaused,
    RolloutPromoted,
    RolloutRolledBack,
)
from schemas.feedback_batch import FeedbackBatch, FeedbackFlag
from schemas.log import Command, RowFlag
from schemas.policy import Against, Gate, GateRole, default_policy
from schemas.rollout import Phase
from streams.watch import WATCH_HORIZON_ROWS, watch_after_promotion
from tests.support.folding import Story, gate, of_type, policy

GATES = [g for g in default_policy().gates if not g.metric.is_health]


def promoted(*gates: Gate, **changes: Any) -> Story:
    """A rollout that went through a stage with a control arm, and was then promoted."""
    story = Story()
    story.beat()
    story.start(policy(*gates, **{"min_seconds": 3_000.0, "max_seconds": 9_000.0} | changes))
    for _ in range(2):
        story.command(Command.PROMOTE)
    for _ in range(10):
        story.after(1).measure(100, 100)
    story.command(Command.PROMOTE, full=True)
    assert of_type(story.outputs, RolloutPromoted)
    return story


def served(story: Story, batches: int, **columns: Any) -> Story:
    """Prompts of everybody, until something happens."""
    for _ in range(batches):
        if story.state.rollout.phase is Phase.PROMOTED:
            story.after(1).serve(200, **columns)
    return story


def rollback(story: Story) -> RolloutRolledBack:
    """The one rollback."""
    (event,) = of_type(story.outputs, RolloutRolledBack)
    return event


@pytest.mark.parametrize(
    ("harm", "broken"),
    [
        ({"flags": RowFlag.FALLBACK}, "semantic-errors"),
        ({"processing_seconds": 0.6}, "latency-p95"),
        ({"coherence": 0.5}, "coherence"),
        ({"score": 0.5}, "score-vs-control"),
        ({"processing_seconds": np.linspace(0.2, 0.4, 200)}, "latency-vs-control"),
    ],
)
def test_a_regression_after_the_promotion_is_taken_back(harm: dict[str, Any], broken: str) -> None:
    """Everybody goes back to what served before, by the same tests as in the stages."""
    story = served(promoted(), 20)
    assert story.state.rollout.phase is Phase.PROMOTED
    served(story, 60, **harm)
    event = rollback(story)
    assert event.gate is not None
    assert event.gate.gate == broken
    assert story.state.rollout.blue.name == "baseline"
    assert story.state.watch is None
    story.after(1).beat()
    assert of_type(story.outputs, RollbackConfirmed)


def test_what_does_no_harm_stays() -> None:
    """Half a million good prompts after the promotion change nothing."""
    rng = np.random.default_rng(4)
    story = promoted()
    for _ in range(250):
        story.after(1).serve(
            2000,
            coherence=rng.beta(16, 4, 2000),
            relevance=rng.beta(14, 6, 2000),
            processing_seconds=rng.lognormal(-2.5, 0.4, 2000),
        )
    assert story.state.rollout.phase is Phase.PROMOTED
    assert not of_type(story.outputs, GateBreached)


def test_control_is_a_record_now() -> None:
    """Gates against control become absolute ones, with what the policy allows beyond the record."""
    watch = watch_after_promotion(
        policy(), {"processing_seconds": 0.2, "score": 0.6, "accuracy": 0.9}
    )
    found = {g.name: (g.objective, g.against) for g in watch.gates}
    assert found["latency-vs-control"] == ("<= 0.250000", None)  # a floor of 50 ms, not 10 %
    assert found["score-vs-control"] == (">= 0.570000", None)
    assert found["accuracy"] == (">= 0.855000", None)
    assert found["latency-p95"] == ("<= 0.5", None)
    # Nothing was recorded of it, and a promotion gate has done its work.
    assert "satisfaction" not in found
    assert "improvement" not in found
    assert all(
        part.endless and part.horizon_rows == WATCH_HORIZON_ROWS
        for part in (e.change for e in watch.evidence if hasattr(e, "change"))
    )
    assert not any(g.against is Against.CONTROL for g in watch.gates)


def test_a_record_of_a_higher_is_better_metric_keeps_its_floor() -> None:
    """A floor widens what is allowed, on either side."""
    loose = gate("score-vs-control", floor=0.1)
    watch = watch_after_promotion(policy(loose), {"score": 0.6})
    assert [g.objective for g in watch.gates] == [">= 0.500000"]


def test_a_signal_is_reported_and_nothing_pauses() -> None:
    """There is no rollout that could be paused: it is an alert for a person."""
    story = promoted(gate("cache-hits", warmup_seconds=0.0), gate("semantic-errors"))
    served(story, 30, flags=RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP)
    (event,) = of_type(story.outputs, GateBreached)
    assert event.gate.role is GateRole.SIGNAL
    assert not of_type(story.outputs, RolloutPaused)
    assert story.state.rollout.phase is Phase.PROMOTED
    (alert,) = of_type(story.outputs, AlertEvent)
    assert "driftgate rollout abort" in alert.cure


def test_rows_of_the_rollout_are_no_evidence_on_what_was_promoted() -> None:
    """Batches that were under way at the promotion were made under its last revision."""
    story = promoted(gate("coherence"))
    before = story.state.rollout.revision - 1
    for _ in range(50):
        story.after(1).measure(100, 100, revision=before, coherence=0.1)
    assert story.state.rollout.phase is Phase.PROMOTED


def test_it_ends_with_the_rollback_window() -> None:
    """What cannot be taken back any more is not judged any more."""
    story = promoted(gate("coherence"), rollback_window_seconds=100.0)
    served(story, 10)
    story.silence(5)
    assert of_type(story.outputs, GateStatus)[-1].gates
    story.silence(90)
    assert story.state.watch is None
    served(story, 30, coherence=0.1)
    story.silence(5)
    assert story.state.rollout.phase is Phase.PROMOTED
    assert of_type(story.outputs, GateStatus)[-1].gates == []


def test_a_policy_can_do_without() -> None:
    """Then nothing is judged after a promotion, as before it began."""
    story = promoted(gate("coherence"), watch_after_promotion=False)
    served(story, 30, coherence=0.1)
    assert story.state.watch is None
    assert story.state.rollout.phase is Phase.PROMOTED


def test_an_abort_ends_the_watch_and_a_start_overtakes_it() -> None:
    """Whoever decides first decides; what comes next has evidence of its own."""
    story = promoted(gate("coherence"))
    story.command(Command.ABORT)
    assert story.state.watch is None
    assert story.state.rollout.phase is Phase.ROLLED_BACK
    story.command(Command.RETRY)
    assert story.state.watch is not None
    assert story.state.watch.control_exists
    assert story.state.baselines == {}


def test_satisfaction_is_held_against_its_record() -> None:
    """M77: what people say of what was promoted, against what they said of control."""
    story = promoted(gate("satisfaction", min_samples=100))
    assert story.state.watch is not None
    assert story.state.watch.gates == []  # nobody had said anything

    again = Story()
    again.beat()
    again.start(policy(gate("satisfaction", min_samples=100), min_seconds=3_000.0))
    for _ in range(2):
        again.command(Command.PROMOTE)
    rated(again, 300, 0.8, candidate=False)
    rated(again, 300, 0.8, candidate=True, first=300)
    again.command(Command.PROMOTE, full=True)
    rated(again, 300, 0.8, candidate=False, first=600)
    assert again.state.rollout.phase is Phase.PROMOTED
    rated(again, 600, 0.4, candidate=False, first=900)
    assert rollback(again).reason.startswith("satisfaction mean >= 0.720000: failed")


def rated(story: Story, rows: int, value: float, *, candidate: bool, first: int = 0) -> None:
    """Ratings of results of the present revision, spread around a mean."""
    flags = FeedbackFlag.USER_RATING | (FeedbackFlag.CANDIDATE if candidate else FeedbackFlag(0))
    columns = {
        "partition": np.zeros(rows, "<i4"),
        "offset": np.arange(first, first + rows, dtype="<i8"),
        "flags": np.full(rows, flags, "u1"),
        "segment": np.zeros(rows, "u1"),
        "revision": np.full(rows, story.state.rollout.revision, "<i4"),
        "value": (value + np.where(np.arange(rows) % 2, 0.1, -0.1)).astype("<f4"),
    }
    story.after(1).record(
        FeedbackBatch(
            service=story.state.service,
            source_topic="prompts.feedback",
            segments=["rest"],
            **{name: column.tobytes() for name, column in columns.items()},
        )
    )


def test_guardrails_and_signals_go_on() -> None:
    """All of the policy's, but for promotion gates and what was never measured."""
    story = promoted()
    assert story.state.watch is not None
    assert [g.name for g in story.state.watch.gates] == [
        g.name for g in GATES if g.role is not GateRole.PROMOTION and not g.metric.is_feedback
    ]
