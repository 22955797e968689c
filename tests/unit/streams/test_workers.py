"""Workers in log time, and the confirmation of a rollback by all of them."""

from __future__ import annotations

import pytest

from schemas.control import (
    AlertEvent,
    AlertSeverity,
    AlertStatus,
    RollbackConfirmed,
    RolloutRolledBack,
)
from schemas.log import Command
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of

POLICY = policy(gate("coherence"), confirm_seconds=30.0)


def rolled_back(*workers: str) -> Story:
    """A rollback that nobody has applied yet, with these workers alive."""
    story = Story()
    story.start(POLICY)
    for worker in workers:
        story.beat(worker)
    story.command(Command.ABORT)
    return story


def alerts(story: Story) -> list[AlertEvent]:
    """All alerts."""
    return of_type(story.outputs, AlertEvent)


def confirmed(story: Story) -> list[RollbackConfirmed]:
    """All confirmations."""
    return of_type(story.outputs, RollbackConfirmed)


@pytest.mark.parametrize(("silent_s", "live"), [(4.0, True), (4.001, False)])
def test_a_worker_lives_for_three_heartbeats_and_a_second(silent_s: float, live: bool) -> None:
    """Liveness is judged by log time alone."""
    story = Story()
    story.beat("w1", interval_ms=1000)
    story.after(silent_s).tick()
    assert story.state.live_workers() == (["w1"] if live else [])


def test_a_measurement_is_a_sign_of_life() -> None:
    """A worker that is too busy for its heartbeat is not dead."""
    story = Story()
    story.beat("w1")
    for _ in range(5):
        story.after(3).measure(1)
    assert story.state.live_workers() == ["w1"]


def test_a_measurement_of_an_earlier_incarnation_is_none() -> None:
    """What a dead worker's last start had delivered does not keep its successor alive."""
    story = Story()
    story.beat("w1", incarnation="w1/2")
    story.silence(10).measure(1)
    assert story.state.live_workers() == []


def test_a_measurement_makes_no_worker_known() -> None:
    """Only a heartbeat says how often it beats and what it has applied."""
    story = Story()
    story.record(measurement(rows_of([0]), worker="w7"))
    assert story.state.live_workers() == []


def test_a_worker_that_leaves_is_gone_at_once() -> None:
    """An orderly stop needs no time-out."""
    story = Story()
    story.beat("w1")
    story.beat("w2")
    story.beat("w1", leaving=True)
    assert story.state.live_workers() == ["w2"]
    story.beat("w3", leaving=True)
    assert story.state.live_workers() == ["w2"]


def test_workers_of_long_ago_are_forgotten() -> None:
    """A fleet whose workers have new names at each start does not fill the state."""
    story = Story()
    for number in range(100):
        story.beat(f"w{number}")
    story.silence(3610).beat("new")
    assert list(story.state.workers) == ["new"]


def test_a_rollback_is_confirmed_by_all_live_workers() -> None:
    """The last acknowledgement confirms it, once, and says how long it took."""
    story = rolled_back("w1", "w2")
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.workers == ["w1", "w2"]
    story.after(0.2).beat("w1")
    assert not confirmed(story)
    story.after(0.3).beat("w2")
    (event,) = confirmed(story)
    assert (event.workers, event.confirmed_ms) == (["w1", "w2"], 500)
    assert event.revision == story.state.rollout.revision
    story.after(1).beat("w1")
    assert len(confirmed(story)) == 1
    assert not alerts(story)


def test_an_old_revision_is_no_acknowledgement() -> None:
    """A heartbeat that was on its way says nothing about the rollback."""
    story = rolled_back("w1")
    story.after(1).beat("w1", revision=story.state.rollout.revision - 1)
    assert not confirmed(story)


def test_a_worker_that_dies_while_pending_is_not_waited_for() -> None:
    """It serves nobody any more: the live ones confirm."""
    story = rolled_back("w1", "w2")
    story.after(1).beat("w1")
    story.after(2.9).beat("w1")
    assert not confirmed(story)
    story.after(0.2).beat("w1")
    (event,) = confirmed(story)
    assert event.workers == ["w1"]


def test_a_worker_that_leaves_while_pending_is_not_waited_for() -> None:
    """The same for an orderly stop, at once."""
    story = rolled_back("w1", "w2")
    story.after(0.1).beat("w1")
    story.after(0.1).beat("w2", leaving=True)
    assert [e.workers for e in confirmed(story)] == [["w1"]]


def test_a_worker_that_comes_while_pending_is_waited_for() -> None:
    """One that starts in the middle must have applied the rollback as well."""
    story = rolled_back("w1", "w2")
    behind = story.state.rollout.revision - 1
    story.after(0.1).beat("w3", revision=behind)
    story.after(0.1).beat("w1")
    story.after(0.1).beat("w2")
    assert not confirmed(story)
    story.after(0.1).beat("w3")
    assert [e.workers for e in confirmed(story)] == [["w1", "w2", "w3"]]


def test_a_rollback_without_live_workers_waits_for_one() -> None:
    """Nobody is no confirmation; the first worker that comes with the state applied is."""
    story = rolled_back()
    story.after(1).tick()
    assert not confirmed(story)
    story.after(1).beat("w1")
    assert [e.workers for e in confirmed(story)] == [["w1"]]


def test_an_unconfirmed_rollback_is_alerted_once_and_resolved() -> None:
    """After the time of the policy a person is told who is behind, and later that it is well."""
    story = rolled_back("w1", "w2")
    behind = story.state.rollout.revision - 1
    for _ in range(30):
        story.after(1).beat("w1")
        story.beat("w2", revision=behind)
    assert not alerts(story)
    for _ in range(10):
        story.after(1).beat("w1")
        story.beat("w2", revision=behind)
    (alert,) = alerts(story)
    assert (alert.status, alert.severity) == (AlertStatus.FIRING, AlertSeverity.CRITICAL)
    assert "not applied by w2" in alert.summary
    assert alert.cure
    story.after(1).beat("w2")
    firing, resolved = alerts(story)
    assert (resolved.status, resolved.key) == (AlertStatus.RESOLVED, firing.key)
    assert len(confirmed(story)) == 1


def test_nobody_alive_is_alerted_by_ticks_alone() -> None:
    """An idle log has ticks: they are enough to find that no worker is there."""
    story = rolled_back()
    for _ in range(40):
        story.after(1).tick()
    (alert,) = alerts(story)
    assert "no worker is alive" in alert.summary


def test_a_new_start_resolves_the_alert_of_the_old_rollback() -> None:
    """An alert must not fire for ever because what it was about has been overtaken."""
    story = rolled_back("w1")
    for _ in range(35):
        story.after(1).beat("w1", revision=0)
    story.start(POLICY)
    firing, resolved = alerts(story)
    assert (resolved.status, resolved.key) == (AlertStatus.RESOLVED, firing.key)
    assert not confirmed(story)


def test_an_abort_after_promotion_is_confirmed_like_any_rollback() -> None:
    """The way back from a promotion is finished when all workers say so."""
    story = Story()
    story.beat("w1")
    story.start(POLICY)
    story.command(Command.PROMOTE, full=True)
    story.command(Command.ABORT)
    story.after(1).beat("w1")
    assert len(confirmed(story)) == 1
