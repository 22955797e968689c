"""A stage that is limited to segments: only their users are compared, everybody is shown (M51)."""

from __future__ import annotations

import numpy as np

from schemas.control import GateStatus, WindowMetrics
from schemas.log import Command, RowFlag
from schemas.policy import Policy, Stage
from schemas.rollout import RolloutState, Segment
from streams.split import SAMPLE_RATIO
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of

STAFF = Segment(name="staff", attribute="plan", values=["staff"])
MINUTE = {"min_seconds": 60.0}
STAGED: Policy = policy(
    gate("score-vs-control"),
    gate("errors-sustained"),
    segments=[STAFF],
    stages=[
        Stage(percent=50.0, segments=["staff"], **MINUTE),
        Stage(percent=25.0, **MINUTE),
        Stage(percent=100.0, **MINUTE),
    ],
)


def measured(story: Story, rows: int, **rest: object) -> None:
    """Good rows of staff in both arms, and rows of everybody else on the control arm."""
    first = story.state.measured
    columns = rows_of(
        range(first, first + 3 * rows),
        segment=np.repeat([1, 1, 0], rows),
        flags=np.repeat([0, RowFlag.CANDIDATE | RowFlag.SEMANTIC, 0], rows),
        score=np.repeat([0.5, 0.6, 0.6], rows) + np.where(np.arange(3 * rows) % 2, 0.01, -0.01),
    )
    for name, values in rest.items():
        columns[name][-rows:] = values
    rollout = story.state.rollout
    story.record(
        measurement(
            columns,
            revision=rollout.revision,
            rollout_id=rollout.rollout_id,
            segments=["rest", "staff"],
        )
    )


def test_only_users_of_the_segment_are_compared() -> None:
    """Control is the segment's control, also where everybody else is quite different."""
    story = Story()
    story.start(STAGED)
    story.after(1)
    measured(story, 400, score=0.99, flags=RowFlag.SYSTEM_ERROR)
    story.after(3).tick()
    *reports, split = of_type(story.outputs, GateStatus)[-1].gates
    assert [(r.samples, r.control_samples) for r in reports] == [(400, 400), (400, 0)]
    assert split.gate == SAMPLE_RATIO
    assert reports[0].limit is not None
    assert abs(reports[0].limit - 0.95 * 0.5) < 1e-6
    shown = {(w.arm, w.segment): w.prompts for w in of_type(story.outputs, WindowMetrics)}
    assert shown[("control", "all")] == 800
    assert shown[("control", "rest")] == 400


def test_the_next_stage_is_for_everybody() -> None:
    """Analyzers are told whose stage it is, and that it is nobody's any more in the next one."""
    story = Story()
    story.start(STAGED)
    story.after(61)
    measured(story, 400)
    states = of_type(story.outputs, RolloutState)
    assert [(s.share, s.only_segments) for s in states] == [(0.5, ["staff"]), (0.25, [])]
    story.after(1)
    measured(story, 400)
    story.after(3).tick()
    reports = of_type(story.outputs, GateStatus)[-1].gates
    assert (reports[0].samples, reports[0].control_samples) == (400, 800)


def test_a_rollback_ends_the_limit() -> None:
    """After it, and after a promotion, no segment is named."""
    for command in (Command.ABORT, Command.PROMOTE):
        story = Story()
        story.start(STAGED)
        story.command(command, full=True)
        assert story.state.rollout.only_segments == []
