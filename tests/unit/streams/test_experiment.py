"""An experiment: one stage, the same tests, and an end in any case (M12, M49)."""

from __future__ import annotations

from pathlib import Path

from schemas.control import (
    Decision,
    RolloutAdvanced,
    RolloutPromoted,
    RolloutRolledBack,
    RolloutStarted,
)
from schemas.policy import Policy, Stage, load_policy
from schemas.rollout import Mode, Phase
from tests.support.folding import Story, gate, of_type, policy

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "experiment.yaml"
GATES = (gate("semantic-errors"), gate("score-vs-control"), gate("improvement"))


def experiment(*stages: Stage) -> Policy:
    """Half of the users for at most an hour."""
    half = Stage(percent=50.0, min_seconds=60.0, max_seconds=3600.0)
    return policy(*GATES, stages=[*stages, half], mode=Mode.EXPERIMENT)


def begun(with_policy: Policy) -> Story:
    """The stage with a share has begun."""
    story = Story()
    story.beat()
    story.start(with_policy)
    return story


def test_green_wins_when_all_is_certified() -> None:
    """It stops as early as it can: the first look after the shortest stay."""
    story = begun(experiment())
    story.after(61).measure(400, 400)
    started, won = of_type(story.outputs, Decision)
    assert isinstance(started, RolloutStarted)
    assert (started.mode, started.share) == (Mode.EXPERIMENT, 0.5)
    assert isinstance(won, RolloutPromoted)
    assert won.reason.startswith("green wins the experiment: all 3 gates hold")
    assert story.state.rollout.blue.name == "semantic"


def test_a_shadow_goes_before() -> None:
    """The shadow advances to the share, which decides."""
    shadow = Stage(percent=0.0, shadow_percent=25.0, min_seconds=60.0)
    story = begun(experiment(shadow)).after(61)
    (advanced,) = of_type(story.measure(400, 400), RolloutAdvanced)
    assert advanced.share == 0.5
    assert "wins" not in advanced.reason
    story.after(61).measure(400, 400)
    assert story.state.rollout.phase is Phase.PROMOTED


def test_blue_wins_when_a_guardrail_breaks() -> None:
    """At once, as in a rollout."""
    story = begun(experiment())
    (event,) = of_type(story.after(5).measure(400, 400, score=0.2), RolloutRolledBack)
    assert event.reason.startswith("blue wins the experiment: score mean >= -5% of control")
    assert story.state.rollout.blue.name == "baseline"


def test_nobody_wins_in_time() -> None:
    """At its end blue stays, and the reason has the interval of what was not shown."""
    story = begun(experiment())
    for _ in range(3):
        story.after(1000).measure(400, 400, score=[0.6, 0.603] * 200, rules_score=0.59)
    assert story.state.rollout.phase is Phase.PROGRESSING
    (event,) = of_type(story.after(1000).tick(), RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "improvement"
    assert event.reason.startswith("the experiment ends without a winner after 4000 s")
    interval = f"in [{event.gate.lower:.4g}, {event.gate.upper:.4g}], objective >= +2%"
    assert interval in event.reason
    assert (event.share, story.state.rollout.blue.name) == (0.0, "baseline")


def test_without_prompts_it_ends_too() -> None:
    """No data is no win."""
    story = begun(experiment()).after(3601)
    (event,) = of_type(story.tick(), RolloutRolledBack)
    assert "improvement: 0 of 200 candidate rows" in event.reason


def test_the_example_can_be_used() -> None:
    """The policy in the documentation is valid, and is an experiment of half the users."""
    example = load_policy(EXAMPLE)
    assert example.mode is Mode.EXPERIMENT
    assert [stage.percent for stage in example.stages] == [0, 50]
