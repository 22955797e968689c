"""The rollout state machine: stages, every command in every phase, and ways back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import (
    CommandRejected,
    Decision,
    GateBreached,
    GateStatus,
    RolloutAdvanced,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutRolledBack,
    RolloutStarted,
    Verdict,
)
from schemas.log import Command
from schemas.policy import Freeze, Stage
from schemas.preflight import PreflightCheck, PreflightResult
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState
from schemas.topics import Topic
from streams.outputs import Output
from tests.support.folding import T0_MS, Story, gate, of_type, policy, said

GATES = (gate("semantic-errors"), gate("score-vs-control"), gate("improvement"))
QUICK = policy(*GATES)


def idle() -> Story:
    """Nothing was ever rolled out."""
    story = Story()
    story.beat()
    return story


def progressing() -> Story:
    """A rollout at 25 %."""
    story = idle()
    story.start(QUICK)
    return story.reach(1)


def paused() -> Story:
    """The same, paused."""
    story = progressing()
    story.command(Command.PAUSE)
    return story


def promoted() -> Story:
    """A rollout that went all the way."""
    story = progressing()
    story.command(Command.PROMOTE, full=True)
    return story


def rolled_back() -> Story:
    """A rollout that was aborted."""
    story = progressing()
    story.command(Command.ABORT)
    return story


PHASES: dict[Phase, Callable[[], Story]] = {
    Phase.IDLE: idle,
    Phase.PROGRESSING: progressing,
    Phase.PAUSED: paused,
    Phase.PROMOTED: promoted,
    Phase.ROLLED_BACK: rolled_back,
}


def decisions(outputs: Iterable[Output]) -> list[Decision]:
    """The control events."""
    return of_type(outputs, Decision)


def test_a_healthy_rollout_goes_through_all_stages() -> None:
    """Shadow, 25, 50, 100 %, promoted: each step is said, and told to the analyzers."""
    story = idle()
    story.start(QUICK)
    while story.state.rollout.phase is Phase.PROGRESSING:
        story.after(61).measure(400, 400)
    events = decisions(story.outputs)
    assert [type(e) for e in events] == [RolloutStarted, *[RolloutAdvanced] * 3, RolloutPromoted]
    assert [e.share for e in events] == [0.0, 0.25, 0.5, 1.0, 0.0]
    states = of_type(story.outputs, RolloutState)
    assert [s.revision for s in states] == [e.revision for e in events] == [1, 2, 3, 4, 5]
    assert [s.shadow_share for s in states] == [0.25, 0.0, 0.0, 0.0, 0.0]
    assert (states[-1].blue.name, states[-1].green) == ("semantic", None)
    assert len({s.salt for s in states}) == 1
    assert {e.actor for e in events[1:]} == {"driftgate"}
    assert events[0].actor == "ann"


def test_a_control_event_comes_before_the_state() -> None:
    """Every change is a control event followed by the state that analyzers obey."""
    story = progressing()
    story.command(Command.ABORT)
    topics = [o.topic for o in story.outputs if o.topic in (Topic.CONTROL, Topic.ROLLOUT)]
    assert topics == [Topic.CONTROL, Topic.ROLLOUT] * 3


def test_no_stage_is_left_before_its_time() -> None:
    """However good the evidence, a stage lasts its minimum."""
    story = idle()
    story.start(QUICK)
    for _ in range(59):
        story.after(1).measure(400, 400)
    assert story.state.rollout.stage == 0
    story.after(1).measure(400, 400)
    assert story.state.rollout.stage == 1


def test_a_promotion_gate_must_be_certified() -> None:
    """An improvement that is likely but not certain does not advance."""
    story = idle()
    story.start(QUICK)
    for _ in range(5):
        story.after(61).measure(400, 400, score=[0.6, 0.603] * 200, rules_score=0.59)
    (report,) = [g for g in of_type(story.outputs, GateStatus)[-1].gates if g.gate == "improvement"]
    assert (story.state.rollout.stage, report.verdict) == (0, Verdict.INCONCLUSIVE)
    story.after(61).measure(400, 400)
    assert story.state.rollout.stage == 1


def test_a_stage_that_takes_too_long_pauses() -> None:
    """Without data nothing advances, and after the maximum the rollout pauses and says why."""
    story = idle()
    story.start(policy(*GATES, min_seconds=60, max_seconds=120))
    story.after(120).tick()
    assert story.state.rollout.phase is Phase.PROGRESSING
    (event,) = of_type(story.after(1).tick(), RolloutPaused)
    assert event.actor == "driftgate"
    assert "121 s" in event.reason
    assert story.state.rollout.shadow_share == 0.25
    story.after(3600).tick()
    assert len(of_type(story.outputs, RolloutPaused)) == 1


def test_resume_restarts_the_stage() -> None:
    """After a pause the stage has its whole time again: it neither pauses nor advances at once."""
    story = idle()
    story.start(policy(*GATES, min_seconds=60, max_seconds=120))
    story.after(121).tick()
    (event,) = decisions(story.command(Command.RESUME, reason="mended"))
    assert isinstance(event, RolloutResumed)
    assert (event.reason, event.share, event.stage) == ("mended", 0.0, 0)
    assert story.state.rollout.phase is Phase.PROGRESSING
    story.after(59).measure(400, 400)
    assert story.state.rollout.stage == 0
    story.after(2).measure(400, 400)
    assert story.state.rollout.stage == 1


def test_a_paused_rollout_still_rolls_back() -> None:
    """A pause keeps the share, not the harm."""
    story = paused()
    (breached, event) = decisions(story.after(1).measure(400, 400, score=0.2))
    assert isinstance(breached, GateBreached)
    assert isinstance(event, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "score-vs-control"


def test_a_paused_rollout_does_not_advance() -> None:
    """However good the evidence, it waits for a person."""
    story = paused()
    for _ in range(10):
        story.after(100).measure(400, 400)
    assert story.state.rollout.phase is Phase.PAUSED
    assert story.state.rollout.share == 0.25


ALLOWED = {
    Phase.IDLE: {Command.START},
    Phase.PROGRESSING: {Command.PAUSE, Command.PROMOTE, Command.ABORT},
    Phase.PAUSED: {Command.RESUME, Command.PROMOTE, Command.ABORT},
    Phase.PROMOTED: {Command.START, Command.ABORT},
    Phase.ROLLED_BACK: {Command.START, Command.RETRY},
}


@pytest.mark.parametrize("command", list(Command))
@pytest.mark.parametrize("phase", list(Phase))
def test_every_command_in_every_phase(phase: Phase, command: Command) -> None:
    """Each is answered once: obeyed, or refused with a reason and without effect."""
    story = PHASES[phase]()
    assert story.state.rollout.phase is phase
    before = msgspec.structs.asdict(story.state.rollout)
    details = {"policy": QUICK} if command is Command.START else {}
    if phase is Phase.PROMOTED and command is Command.START:
        # What serves already is no candidate.
        details["green"] = "baseline"
    answers = decisions(story.command(command, id="x", **details))
    (answer,) = [e for e in answers if e.command_id == "x"]
    assert answer.actor == "ann"
    if command in ALLOWED[phase]:
        assert not isinstance(answer, CommandRejected), answer.reason
        assert story.state.rollout.revision == before["revision"] + 1
    else:
        assert isinstance(answer, CommandRejected)
        assert answer.reason.startswith(f"{command}: ")
        assert msgspec.structs.asdict(story.state.rollout) == before


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("command", list(Command))
def test_a_repeated_command_changes_nothing(phase: Phase, command: Command) -> None:
    """The same id again has no answer and no effect, whether it was obeyed or refused."""
    story = PHASES[phase]()
    details = {"policy": QUICK} if command is Command.START else {}
    story.command(command, id="x", **details)
    before = story.state.rollout
    assert story.after(0.1).command(command, id="x", **details) == []
    assert story.state.rollout == before


def test_promote_goes_one_stage_on() -> None:
    """Without `--full` a person skips one stage's gates, not all."""
    story = progressing()
    (event,) = decisions(story.command(Command.PROMOTE, reason="sure"))
    assert isinstance(event, RolloutAdvanced)
    assert (event.stage, event.share, event.reason, event.actor) == (2, 0.5, "sure", "ann")
    story.command(Command.PROMOTE)
    (event,) = decisions(story.command(Command.PROMOTE))
    assert isinstance(event, RolloutPromoted)


def test_promote_in_a_pause_goes_on() -> None:
    """A person who promotes a paused rollout wants it to move."""
    story = paused()
    story.command(Command.PROMOTE)
    assert story.state.rollout.phase is Phase.PROGRESSING
    assert story.state.rollout.share == 0.5


def test_abort_after_promotion_goes_back() -> None:
    """What served before is back, once; then there is nothing more to take back."""
    story = promoted()
    assert story.state.rollout.blue.name == "semantic"
    (event,) = decisions(story.command(Command.ABORT))
    assert isinstance(event, RolloutRolledBack)
    assert story.state.rollout.blue.name == "baseline"
    assert story.state.confirmation is not None
    (refused,) = decisions(story.command(Command.ABORT))
    assert isinstance(refused, CommandRejected)


def test_a_rollout_can_start_again_after_a_rollback() -> None:
    """A second try is another rollout, with its own salt, revisions going on."""
    story = rolled_back()
    first = story.state.rollout
    story.start(QUICK)
    second = story.state.rollout
    assert second.phase is Phase.PROGRESSING
    assert (second.stage, second.share) == (0, 0.0)
    assert second.revision == first.revision + 1
    assert second.rollout_id != first.rollout_id
    assert second.salt != first.salt
    assert second.blue.name == "baseline"


def test_the_next_rollout_starts_from_what_was_promoted() -> None:
    """Blue is what serves, whatever the next policy calls blue."""
    third = Deployment(name="third", kind=DeploymentKind.SEMANTIC)
    story = promoted()
    following = msgspec.structs.replace(QUICK, deployments=[*QUICK.deployments, third])
    (event,) = decisions(story.start(following, green="third"))
    assert isinstance(event, RolloutStarted)
    assert (event.blue, event.green) == ("semantic", "third")
    story.command(Command.ABORT)
    assert story.state.rollout.blue.name == "semantic"


def test_a_start_after_lost_history_overtakes_every_worker() -> None:
    """A revision that a worker claims to have applied is never used again."""
    story = Story()
    story.beat(revision=41)
    story.start(QUICK)
    assert story.state.rollout.revision == 42


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({}, "comes without a policy"),
        ({"policy": QUICK, "green": "nope"}, "no deployment 'nope'; it has: baseline, semantic"),
        ({"policy": QUICK, "green": "baseline"}, "'baseline' is what serves already"),
        (
            {"policy": msgspec.structs.replace(QUICK, stages=[Stage(percent=50, min_seconds=0)])},
            "stages[0].percent: the last stage must be 100",
        ),
    ],
)
def test_a_start_that_cannot_be_done_is_refused(details: dict[str, object], reason: str) -> None:
    """The answer says what is wrong, and nothing has started."""
    story = idle()
    (event,) = decisions(story.command(Command.START, **details))
    assert isinstance(event, CommandRejected)
    assert reason in event.reason
    assert story.state.rollout.phase is Phase.IDLE


def test_a_second_start_names_the_rollout_in_the_way() -> None:
    """One rollout at a time: the refusal says which one is under way."""
    story = progressing()
    (event,) = decisions(story.start(QUICK))
    assert isinstance(event, CommandRejected)
    assert str(story.state.rollout.rollout_id) in event.reason


def test_rejections_carry_the_policy_in_force() -> None:
    """A decision names the policy that it was made by."""
    story = progressing()
    (event,) = decisions(story.command(Command.RESUME))
    assert event.policy_hash == QUICK.hash


def test_a_holdback_keeps_a_control_arm_at_the_end() -> None:
    """The last stage leaves a share of users on blue, so that comparisons go on."""
    story = idle()
    story.start(policy(*GATES, holdback_percent=5.0))
    story.reach(3)
    assert story.state.rollout.share == 0.95
    story.after(61).measure(400, 400, score=0.3)
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "score-vs-control"


def frozen(seconds_from: float, seconds_to: float) -> Freeze:
    """A freeze at so many seconds after the logs begin."""
    times = [
        datetime.fromtimestamp(T0_MS / 1000 + s, UTC).isoformat()
        for s in (seconds_from, seconds_to)
    ]
    return Freeze(from_=times[0], to=times[1])


def test_nothing_starts_or_advances_in_a_freeze() -> None:
    """Neither by itself nor by a person; the moment that it ends, it goes on."""
    cold = policy(*GATES, freezes=[frozen(0, 10), frozen(50, 200)])
    story = idle()
    (refused,) = decisions(story.start(cold))
    assert isinstance(refused, CommandRejected)
    assert "2027-01-15T08:00:10+00:00: wait for its end" in refused.reason
    story.after(10).start(cold)
    assert story.state.rollout.phase is Phase.PROGRESSING
    story.after(70).measure(400, 400)
    (refused,) = decisions(story.command(Command.PROMOTE))
    assert isinstance(refused, CommandRejected)
    story.after(119).measure(400, 400)
    assert story.state.rollout.stage == 0
    story.after(1).measure(1, 1)
    assert story.state.rollout.stage == 1


def test_a_guardrail_rolls_back_in_a_freeze() -> None:
    """Harm does not wait for the holidays to end."""
    story = idle()
    story.start(policy(*GATES, freezes=[frozen(1, 9999)]))
    story.after(5).measure(400, 400, score=0.2)
    assert of_type(story.outputs, RolloutRolledBack)


def test_an_abort_after_a_promotion_has_its_time() -> None:
    """Within the window it goes back; after it, the refusal says what to do instead."""
    story = idle()
    story.start(policy(*GATES, rollback_window_seconds=100.0))
    story.command(Command.PROMOTE, full=True)
    story.after(100.5)
    (refused,) = decisions(story.command(Command.ABORT))
    assert isinstance(refused, CommandRejected)
    assert "`driftgate rollout start --green baseline`" in refused.reason
    assert story.state.rollout.phase is Phase.PROMOTED
    story = idle()
    story.start(policy(*GATES, rollback_window_seconds=100.0))
    story.command(Command.PROMOTE, full=True)
    (event,) = decisions(story.after(100).command(Command.ABORT))
    assert isinstance(event, RolloutRolledBack)


def test_a_retry_starts_what_was_rolled_back() -> None:
    """The same policy and green, another rollout with its own users and its own alpha."""
    story = rolled_back()
    first = story.state.rollout
    (event,) = decisions(story.command(Command.RETRY, reason="mended"))
    assert isinstance(event, RolloutStarted)
    assert (event.green, event.reason, event.policy_hash) == ("semantic", "mended", QUICK.hash)
    assert story.state.rollout.salt != first.salt
    assert (story.state.rollout.stage, story.state.resumptions) == (0, 0)


def test_a_retry_after_a_promotion_was_taken_back() -> None:
    """What had been promoted is tried again."""
    story = promoted()
    story.command(Command.ABORT)
    (event,) = decisions(story.command(Command.RETRY))
    assert isinstance(event, RolloutStarted)
    assert (event.blue, event.green) == ("baseline", "semantic")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*Command, "healthy", "harm", "tick", "beat"]),
            st.booleans(),
            st.sampled_from([0.0, 1.0, 61.0, 4000.0]),
        ),
        max_size=30,
    )
)
def test_any_sequence_keeps_the_machine_sound(
    steps: list[tuple[Command | str, bool, float]],
) -> None:
    """Whatever is asked and measured: revisions rise by one a state, shares fit the phase."""
    story = idle()
    for what, full, seconds in steps:
        story.after(seconds)
        if what == "healthy":
            story.measure(300, 300)
        elif what == "harm":
            story.measure(300, 300, score=0.1)
        elif what == "tick":
            story.tick()
        elif what == "beat":
            story.beat()
        elif what is Command.START:
            story.start(QUICK, green="baseline" if full else None)
        else:
            story.command(Command(what), full=full)
        rollout = story.state.rollout
        active = rollout.phase in (Phase.PROGRESSING, Phase.PAUSED)
        assert (rollout.green is not None) == active
        assert rollout.share == 0 or active
        if active:
            stage = story.state.policy.stages[rollout.stage]
            assert rollout.share == stage.percent / 100
            assert rollout.green != rollout.blue
    states = of_type(story.outputs, RolloutState)
    assert [s.revision for s in states] == list(range(1, len(states) + 1))
    ids = [id for _, id, _ in said(story.outputs)]
    assert len(ids) == len(set(ids))


def test_a_start_needs_the_checks_that_its_policy_asks_for() -> None:
    """Only those that have passed count; what else was found is in the event as well."""
    checks = [PreflightCheck.TOPICS, PreflightCheck.WORKERS]
    strict = policy(gate("coherence"), preflight=checks)

    def found(*passed: bool) -> list[PreflightResult]:
        return [
            PreflightResult(check=check, passed=ok, found="x")
            for check, ok in zip(checks, passed, strict=True)
        ]

    story = Story()
    story.start(strict)
    story.start(strict, preflight=found(True, False))
    refused = of_type(story.outputs, CommandRejected)
    assert [e.reason.split(";")[0] for e in refused] == [
        "start: the policy asks for checks that have not passed: topics, workers",
        "start: the policy asks for checks that have not passed: workers",
    ]
    story.start(strict, preflight=found(True, True))
    (started,) = of_type(story.outputs, RolloutStarted)
    assert started.preflight == found(True, True)
    # A retry is a start: what held yesterday need not hold today.
    story.command(Command.ABORT)
    story.command(Command.RETRY)
    assert of_type(story.outputs, CommandRejected)[-1].reason.startswith("retry: the policy asks")
    story.command(Command.RETRY, preflight=found(True, True))
    assert story.state.rollout.phase is Phase.PROGRESSING


def test_a_rehearsal_never_leaves_its_shadow() -> None:
    """It needs no checks, serves nobody, is promoted by nobody, and ends with its abort."""
    story = Story()
    story.start(policy(gate("coherence"), preflight=[PreflightCheck.ALERTS]), rehearsal=True)
    for _ in range(5):
        story.after(100).measure(400, 400)
    story.command(Command.PROMOTE)
    assert "this is a rehearsal" in of_type(story.outputs, CommandRejected)[0].reason
    assert (story.state.rollout.stage, story.state.rollout.share) == (0, 0.0)
    story.command(Command.ABORT)
    assert story.state.rollout.phase is Phase.ROLLED_BACK
    story.start(policy(gate("coherence"), percents=(25, 100)), rehearsal=True)
    assert "needs a policy whose first stage is a shadow" in (
        of_type(story.outputs, CommandRejected)[-1].reason
    )
