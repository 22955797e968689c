"""Feedback in the log: counted once, shown in windows, judged by its gates (M59, M74, M77)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.control import (
    GateReport,
    GateStatus,
    RolloutPaused,
    RolloutRolledBack,
    Verdict,
    WindowMetrics,
)
from schemas.feedback_batch import FEEDBACK_COLUMNS, FeedbackBatch, FeedbackFlag
from schemas.policy import Gate, GateRole, Metric, Statistic, default_policy
from schemas.policy_checks import contradictions
from schemas.rollout import Phase
from streams.outputs import Output
from streams.state import restore, snapshot
from tests.support.folding import SERVICE, Story, gate, of_type, policy, said

RATING, LABEL, JUDGE = (
    FeedbackFlag.USER_RATING,
    FeedbackFlag.EXPERT_LABEL,
    FeedbackFlag.JUDGE_SCORE,
)


class Feedback:
    """Makes batches of feedback on a story's rollout, offsets rising."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.offset = 0

    def batch(
        self,
        control: list[float],
        candidate: list[float],
        kind: FeedbackFlag = RATING,
        *,
        first: int | None = None,
        revision: int | None = None,
    ) -> FeedbackBatch:
        count = len(control) + len(candidate)
        begin = self.offset if first is None else first
        self.offset = max(self.offset, begin + count)
        present = self.story.state.rollout.revision if revision is None else revision
        columns: dict[str, Any] = {
            "partition": np.zeros(count),
            "offset": np.arange(begin, begin + count),
            "flags": [kind] * len(control) + [kind | FeedbackFlag.CANDIDATE] * len(candidate),
            "segment": np.zeros(count),
            "revision": np.full(count, present),
            "value": [*control, *candidate],
        }
        return FeedbackBatch(
            service=SERVICE,
            source_topic="prompts.feedback",
            segments=["rest"],
            **{
                name: np.asarray(columns[name]).astype(dtype).tobytes()
                for name, dtype in FEEDBACK_COLUMNS.items()
            },
        )

    def give(self, *arguments: Any, **details: Any) -> list[Output]:
        return self.story.record(self.batch(*arguments, **details))


def mixed(count: int, mean: float) -> list[float]:
    """Zeros and ones, spread evenly, with a mean."""
    return [float((i + 1) * mean % 1 < i * mean % 1 or mean == 1) for i in range(count)]


def at_stage_one(*gates: Gate) -> tuple[Story, Feedback]:
    story = Story()
    kept = gates or (gate("semantic-errors"), gate("satisfaction"), gate("accuracy"))
    story.start(policy(*kept))
    story.reach(1)
    return story, Feedback(story)


def report(story: Story, name: str) -> GateReport:
    """The last report of a gate, made when the present pane closes."""
    outputs = story.after(2.5).tick()
    return next(g for g in of_type(outputs, GateStatus)[-1].gates if g.gate == name)


def test_mixed_values_have_their_mean() -> None:
    """The helper of these tests is right."""
    assert np.mean(mixed(1000, 0.8)) == pytest.approx(0.8, abs=0.002)


def test_negative_feedback_rolls_back() -> None:
    """M77: users of green are less satisfied by a quarter: back to blue, with the numbers."""
    story, feedback = at_stage_one()
    for _ in range(100):
        feedback.give(mixed(40, 0.8), mixed(40, 0.6))
        if story.state.rollout.phase is Phase.ROLLED_BACK:
            break
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "satisfaction"
    assert event.gate.samples >= 100
    assert event.gate.value == pytest.approx(0.6, abs=0.05)
    assert "satisfaction mean >= -10% of control: failed" in event.reason


def test_a_loss_of_accuracy_rolls_back() -> None:
    """M74: 8 % less accurate by experts and judges, where 5 % are allowed."""
    story, feedback = at_stage_one()
    for number in range(400):
        kind = LABEL if number % 2 else JUDGE
        feedback.give(mixed(100, 0.9), mixed(100, 0.9 * 0.92), kind)
        if story.state.rollout.phase is Phase.ROLLED_BACK:
            break
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "accuracy"


def test_equal_feedback_holds_and_the_rollout_advances() -> None:
    """The same satisfaction in both arms: the gate holds, and the next stage comes."""
    story, feedback = at_stage_one()
    for _ in range(20):
        feedback.give(mixed(40, 0.8), mixed(40, 0.8))
    assert report(story, "satisfaction").verdict is not Verdict.FAILED
    story.reach(2)
    assert story.state.rollout.phase is Phase.PROGRESSING


def test_a_worse_estimate_holds_the_rollout_up() -> None:
    """An optional gate with rows enough counts: on the bad side of its limit nothing advances."""
    story, feedback = at_stage_one()
    feedback.give(mixed(120, 0.8), mixed(120, 0.68))
    assert story.state.rollout.phase is Phase.PROGRESSING, "not certified yet"
    story.after(100).measure(400, 400)
    assert story.state.rollout.stage == 1


def test_no_feedback_is_neither_success_nor_error() -> None:
    """M59: where nobody says anything, an optional gate says so, and holds nothing up."""
    story, _ = at_stage_one()
    for _ in range(20):
        story.after(1).measure(400, 400)
    said_of_it = report(story, "satisfaction")
    assert said_of_it.verdict is Verdict.INCONCLUSIVE
    assert said_of_it.reason.startswith("no feedback yet: 0 of 100 candidate rows")
    story.reach(3)
    assert not of_type(story.outputs, RolloutPaused)


def test_no_feedback_is_an_error_where_somebody_must_have_looked() -> None:
    """Without `optional`, no data is no success: the gate blocks, then cannot be judged."""
    story = Story()
    gates = (gate("semantic-errors"), gate("accuracy", optional=False))
    story.start(policy(*gates, percents=(25, 50, 100)))
    story.after(100).measure(400, 400)
    assert story.state.rollout.stage == 0
    for _ in range(5):
        story.after(1).measure(400, 400)
    (event,) = of_type(story.outputs, RolloutPaused)
    assert "cannot be judged" in event.reason


def test_a_gate_on_feedback_in_shadow_must_be_optional() -> None:
    """In shadow nobody sees what green makes of a prompt, so such a gate could never be judged."""
    wrong = contradictions(policy(gate("accuracy", optional=False)))
    assert [key for key, _ in wrong] == ["gates[0].optional"]
    assert not contradictions(policy(gate("accuracy", optional=False), percents=(25, 100)))


def test_an_optional_promotion_gate_holds_nothing_up_without_rows() -> None:
    """Optional means the same for what must be certified before advancing."""
    story, _ = at_stage_one(
        gate("semantic-errors"), gate("accuracy", role=GateRole.PROMOTION, objective=">= -5%")
    )
    story.reach(2)
    assert story.state.rollout.stage == 2


def test_an_absolute_gate_on_feedback() -> None:
    """A mean in [0, 1] against a number, without any control arm."""
    stars = Gate(
        name="stars",
        metric=Metric.SATISFACTION,
        statistic=Statistic.MEAN,
        objective=">= 0.7",
        role=GateRole.GUARDRAIL,
        min_samples=50,
        optional=True,
    )
    story, feedback = at_stage_one(gate("semantic-errors"), stars)
    for _ in range(60):
        feedback.give([], mixed(20, 0.5))
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "stars"


def test_feedback_is_counted_once() -> None:
    """A batch that a curator sends again, or an overlapping one, adds only what is new."""
    story, feedback = at_stage_one()
    batch = feedback.batch(mixed(40, 0.8), mixed(40, 0.8))
    story.record(batch)
    story.record(batch)
    assert (story.state.feedback, story.state.repeated) == (80, 80)
    feedback.give(mixed(50, 0.8), mixed(50, 0.8), first=40)
    assert (story.state.feedback, story.state.repeated) == (140, 120)
    assert report(story, "satisfaction").samples == 40 + 50


def test_feedback_and_prompts_have_offsets_of_their_own() -> None:
    """Offset 0 of the feedback is not offset 0 of the prompts."""
    story, feedback = at_stage_one()
    assert story.state.measured > 0
    feedback.give([1.0], [0.0], first=0)
    assert story.state.feedback == 2


def test_feedback_on_another_revision_is_no_evidence() -> None:
    """What was served under another split is shown, and judged by nobody."""
    story, feedback = at_stage_one()
    before = story.state.rollout.revision - 1
    for _ in range(50):
        feedback.give(mixed(40, 0.8), mixed(40, 0.1), revision=before)
    assert story.state.rollout.phase is Phase.PROGRESSING
    assert story.state.feedback == 4000
    assert report(story, "satisfaction").samples == 0


def test_windows_show_feedback() -> None:
    """Means and counts by arm, each kind in its metric; a window without any has nulls."""
    story, feedback = at_stage_one()
    story.after(61).tick()
    feedback.give([1.0, 0.5], [0.25], RATING)
    feedback.give([], [1.0], LABEL)
    feedback.give([], [0.5], JUDGE)
    outputs = story.after(2.5).tick()
    windows = {w.arm: w for w in of_type(outputs, WindowMetrics) if w.segment == "all"}
    control, candidate = windows["control"], windows["candidate"]
    assert (control.satisfaction_samples, control.satisfaction_mean) == (2, 0.75)
    assert (control.accuracy_samples, control.accuracy_mean) == (0, None)
    assert (candidate.satisfaction_samples, candidate.satisfaction_mean) == (1, 0.25)
    assert (candidate.accuracy_samples, candidate.accuracy_mean) == (2, 0.75)
    assert candidate.prompts == 0


def test_feedback_between_rollouts_is_shown() -> None:
    """Without a rollout it is counted and judged by nothing."""
    story = Story()
    Feedback(story).give(mixed(10, 0.5), [])
    assert story.state.feedback == 10
    window = of_type(story.after(2.5).tick(), WindowMetrics)[0]
    assert window.satisfaction_samples == 10


def test_a_snapshot_in_the_middle_changes_nothing() -> None:
    """State that went through bytes goes on to the same outputs, to the byte."""
    story, feedback = at_stage_one()
    feedback.give(mixed(60, 0.8), mixed(60, 0.6))
    twin = Story()
    twin.state = restore(snapshot(story.state))
    twin.entries, twin.now_ms = list(story.entries), story.now_ms
    batches = [feedback.batch(mixed(40, 0.8), mixed(40, 0.6)) for _ in range(30)]
    ours = [out for batch in batches for out in story.after(1).record(batch)]
    theirs = [out for batch in batches for out in twin.after(1).record(batch)]
    assert said(ours) == said(theirs)
    assert of_type(ours, RolloutRolledBack)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": np.array([np.nan], "<f4").tobytes()},
        {"value": np.array([1.5], "<f4").tobytes()},
        {"value": b"12"},
        {"flags": b"\x00"},
        {"flags": b"\x06"},
        {"flags": b"\x82"},
        {"segment": b"\x05"},
        {"revision": np.array([-1], "<i4").tobytes()},
        {"offset": np.array([-1], "<i8").tobytes()},
    ],
)
def test_bad_columns_are_refused_whole(changes: dict[str, bytes]) -> None:
    """A batch that cannot be is counted as undecodable, and changes nothing else."""
    story, feedback = at_stage_one()
    good = feedback.batch([1.0], [])
    fields = {name: getattr(good, name) for name in FEEDBACK_COLUMNS} | changes
    bad = FeedbackBatch(
        service=SERVICE, source_topic="prompts.feedback", segments=["rest"], **fields
    )
    before = story.state.undecodable
    story.record(bad)
    assert story.state.undecodable == before + 1
    assert story.state.feedback == 0


def test_the_default_policy_has_both_gates() -> None:
    """M59, M74, M77: optional guardrails against control, at the mission's numbers."""
    gates = {g.name: g for g in default_policy().gates}
    for name, objective in (("satisfaction", ">= -10%"), ("accuracy", ">= -5%")):
        assert gates[name].objective == objective
        assert gates[name].role is GateRole.GUARDRAIL
        assert gates[name].optional
    assert sum(g.optional for g in default_policy().gates) == 2
