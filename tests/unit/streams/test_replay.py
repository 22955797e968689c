"""Replay: the same decisions, under another policy too, and every way in which they can differ."""

from __future__ import annotations

import math

import msgspec
import pytest

from schemas.cloudevents import encode_json
from schemas.control import Decision, RolloutRolledBack, Verdict
from schemas.log import Command
from streams.replay import Replay, disagreements, gates_of, under_policy
from tests.support.folding import Story, gate, of_type, policy

STRICT = policy(gate("coherence"), min_seconds=80_000.0, max_seconds=86_400.0)


def told() -> Story:
    """A rollout that harms after a while, and is taken back."""
    story = Story()
    story.beat()
    story.start(STRICT)
    story.command(Command.PROMOTE)
    for _ in range(20):
        story.after(1).measure(0, 100)
    for _ in range(10):
        story.after(1).measure(0, 100, coherence=0.5)
    assert of_type(story.outputs, RolloutRolledBack)
    return story


def replayed(story: Story, trace: str | None = None) -> Replay:
    """The story's log, folded again."""
    fold = Replay(story.state.service, trace=trace)
    for entry in story.entries:
        fold.take(entry)
    return fold


def published(story: Story) -> list[tuple[str, bytes]]:
    """What a monitor would have put on the control topic."""
    return [(e.id, encode_json(e)) for e in of_type(story.outputs, Decision)]


def test_a_replay_decides_the_same() -> None:
    """Ids, bytes and order; a repetition is none the less agreement."""
    story = told()
    fold = replayed(story)
    said = published(story)
    assert len(said) == 5
    assert disagreements(fold.decisions, said) == []
    assert disagreements(fold.decisions, [said[0], *said]) == []


def test_every_difference_is_named() -> None:
    """Lost, invented, changed, reordered or contradicted: with the id of the decision."""
    story = told()
    decided, said = replayed(story).decisions, published(story)
    id, value = said[1]
    changed = value.replace(b'"share":0.25', b'"share":0.26')
    assert changed != value
    cases = {
        "is not on the control topic": said[:1] + said[2:],
        "does not follow from the log": [*said, ("made-up", value)],
        "share follows as 0.25, and stands as 0.26": [said[0], (id, changed), *said[2:]],
        "twice, differently": [*said, (id, changed)],
        "stands where": [said[1], said[0], *said[2:]],
        "no JSON": [said[0], (id, b"\xff"), *said[2:]],
        "no event": [said[0], (id, b"[]"), *said[2:]],
        "in other bytes": [said[0], (id, value.replace(b",", b", ", 1)), *said[2:]],
    }
    for what, other in cases.items():
        (found,) = disagreements(decided, other)
        assert what in found.what
        assert found.id in {id, "made-up"}


def test_another_policy_decides_otherwise() -> None:
    """With the gate on trial the same log takes nothing back, and says so with another hash."""
    story = told()
    milder = msgspec.structs.replace(STRICT, gates=[gate("coherence", objective=">= 0.4")])
    fold = Replay("shop")
    for entry in under_policy(story.entries, milder):
        fold.take(entry)
    assert [type(e).__name__ for e in fold.decisions] == ["RolloutStarted", "RolloutAdvanced"]
    assert {e.policy_hash for e in fold.decisions} == {milder.hash}
    assert story.state.policy.hash == STRICT.hash


def test_records_that_cannot_be_read_stay_in_a_replay_under_another_policy() -> None:
    """They moved the clock then, and do now."""
    story = told()
    story.after(5).raw(b"\xff")
    kept = list(under_policy(story.entries, STRICT))
    assert len(kept) == len(story.entries)
    assert kept[-1] == story.entries[-1]


def test_the_trace_of_a_decision_ends_beyond_its_boundary() -> None:
    """The evidence of the stage, a point a pane; only the last one certifies."""
    story = told()
    (event,) = of_type(story.outputs, RolloutRolledBack)
    trace = replayed(story, event.id).trace
    assert trace is not None
    points = trace.points["coherence"]
    boundary = -math.log(trace.alphas["coherence"])
    assert points[-1].at_ms == event.at_ms
    assert points[-1].breach >= boundary
    assert all(p.breach < boundary for p in points[:-1])
    assert len(points) >= 10
    assert points[0].at_ms >= story.state.stage_since_ms
    assert points[9].good > points[0].good


def test_a_decision_without_evidence_has_no_trace() -> None:
    """A start was asked for; nothing led to it."""
    story = told()
    started = of_type(story.outputs, Decision)[0]
    assert replayed(story, started.id).trace is None
    assert gates_of(started) == []


@pytest.mark.parametrize("stage", [1, 2])
def test_the_reports_of_an_advance_begin_with_what_it_waited_for(stage: int) -> None:
    """Promotion gates first: they had to be certified."""
    story = Story()
    story.start(policy(gate("semantic-errors"), gate("improvement")))
    story.reach(stage)
    reports = gates_of(of_type(story.outputs, Decision)[-1])
    assert [r.gate for r in reports] == ["improvement", "semantic-errors"]
    assert reports[0].verdict is Verdict.SUCCESSFUL
