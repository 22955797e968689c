"""The split itself is watched: users that get lost pause a rollout, and end an experiment (M49)."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.control import GateBreached, GateStatus, RolloutPaused, RolloutRolledBack, Verdict
from schemas.log import Command, RowFlag
from schemas.policy import Policy, Stage
from schemas.rollout import BUCKETS, NO_BUCKET, Mode, Phase
from streams.replay import Replay
from streams.split import SAMPLE_RATIO, new_split
from streams.state import restore, snapshot
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of

GATES = (gate("semantic-errors"), gate("improvement"))
ROLLOUT: Policy = policy(*GATES, min_seconds=3000.0)
EXPERIMENT: Policy = policy(
    *GATES, stages=[Stage(percent=50.0, min_seconds=3000.0)], mode=Mode.EXPERIMENT
)


def users_come(story: Story, users: np.ndarray, *, kept: float = 1.0, seed: int = 1) -> None:
    """A prompt of each of these buckets; of the candidate's a part gets lost on the way."""
    rollout = story.state.rollout
    share = rollout.share or rollout.shadow_share
    candidate = users < round(share * BUCKETS)
    stays = ~candidate | (np.random.default_rng(seed).random(len(users)) < kept)
    users, candidate = users[stays], candidate[stays]
    flags = np.where(candidate, RowFlag.CANDIDATE | RowFlag.SEMANTIC, 0)
    first = story.state.measured
    columns = rows_of(range(first, first + len(users)), flags=flags, bucket=users)
    story.after(1).record(
        measurement(columns, revision=rollout.revision, rollout_id=rollout.rollout_id)
    )


def under_way(with_policy: Policy = ROLLOUT, *, kept: float, seed: int = 1) -> Story:
    """A stage in which six thousand users come, each of them once."""
    story = Story()
    story.beat()
    story.start(with_policy)
    rng = np.random.default_rng(seed)
    for number in range(60):
        users_come(story, rng.integers(0, BUCKETS, 100), kept=kept, seed=number)
    return story


@pytest.mark.parametrize("kept", [1.0, 0.8, 0.5])
def test_lost_users_pause_a_rollout(kept: float) -> None:
    """The shadow's users count as candidates; a whole split goes on, a lossy one says numbers."""
    story = under_way(kept=kept)
    paused = of_type(story.outputs, RolloutPaused)
    if kept == 1.0:
        assert paused == []
        return
    (event,) = paused
    assert event.gate is not None
    assert (event.gate.gate, event.gate.verdict) == (SAMPLE_RATIO, Verdict.FAILED)
    assert "expected" in event.reason
    assert "find what loses them" in event.reason
    assert event.gate.value is not None
    assert event.gate.value < 0.25 == event.gate.limit
    assert [e.gate for e in of_type(story.outputs, GateBreached)] == [event.gate]
    assert story.state.rollout.phase is Phase.PAUSED


def test_a_resumed_stage_counts_anew() -> None:
    """After the pause the evidence begins again, with a share of alpha of its own."""
    story = under_way(kept=0.5)
    before = story.state.split
    story.command(Command.RESUME)
    assert before is not None
    assert story.state.split is not None
    assert story.state.split.evidence.candidate == 0
    assert story.state.split.alpha < before.alpha
    rng = np.random.default_rng(4)
    for number in range(60):
        users_come(story, rng.integers(0, BUCKETS, 100), seed=number)
    assert story.state.rollout.phase is Phase.PROGRESSING


def test_lost_users_end_an_experiment() -> None:
    """Nobody wins where the comparison is none."""
    story = under_way(EXPERIMENT, kept=0.7)
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.reason.startswith("the experiment ends without a winner: sample ratio")
    assert event.gate is not None
    assert event.gate.gate == SAMPLE_RATIO
    assert (story.state.rollout.phase, story.state.split) == (Phase.ROLLED_BACK, None)


def test_a_chatty_user_is_no_mismatch() -> None:
    """A hundred users, one of whom sends a hundred times as much as all others together."""
    story = Story()
    story.start(ROLLOUT)
    users_come(story, np.arange(0, BUCKETS, 100))
    for _ in range(50):
        users_come(story, np.full(200, 3))
    assert story.state.rollout.phase is Phase.PROGRESSING
    story.after(5).tick()
    report = of_type(story.outputs, GateStatus)[-1].gates[-1]
    assert (report.gate, report.samples, report.control_samples) == (SAMPLE_RATIO, 26, 75)


def test_rows_without_a_bucket_say_nothing() -> None:
    """Rejected and forced rows, and rows of another revision."""
    story = Story()
    story.start(ROLLOUT)
    users_come(story, np.full(500, NO_BUCKET))
    story.record(measurement(rows_of(range(10_000, 10_500), bucket=9), revision=0))
    assert story.state.split is not None
    assert (story.state.split.evidence.candidate, story.state.split.evidence.control) == (0, 0)


def test_nobody_is_split_at_all_or_nothing() -> None:
    """At 0 % without a shadow, and at 100 % without a holdback, there is nothing to watch."""
    plain = policy(*GATES, percents=(50, 100))
    assert [new_split(plain, stage) is None for stage in (0, 1)] == [False, True]
    held = policy(*GATES, percents=(50, 100), holdback_percent=5.0)
    split = new_split(held, 1)
    assert split is not None
    assert split.evidence.candidate_buckets == 9500


def test_the_split_survives_a_restart_and_a_replay() -> None:
    """A snapshot gives the same bytes again, and `explain` finds the evidence of the pause."""
    story = under_way(kept=0.6)
    assert snapshot(restore(snapshot(story.state))) == snapshot(story.state)
    (event,) = of_type(story.outputs, RolloutPaused)
    fold = Replay(story.state.service, trace=event.id)
    for entry in story.entries:
        fold.take(entry)
    assert fold.trace is not None
    points = fold.trace.points[SAMPLE_RATIO]
    assert points[-1].breach >= -np.log(fold.trace.alphas[SAMPLE_RATIO]) > points[0].breach
