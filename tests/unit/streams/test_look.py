"""Batches that come faster than anybody looks are counted together, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.control import AlertEvent, GateStatus, RolloutRolledBack
from schemas.log import Command, RowFlag
from schemas.rollout import Segment
from streams.fold import LOOK_MS, LOOK_ROWS
from streams.state import restore, snapshot
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of

SOON = LOOK_MS / 1000 / 10


def rolling(*names: str) -> Story:
    """A rollout at 25 %, that was just looked at."""
    story = Story()
    story.start(policy(*(gate(name) for name in names or ("coherence",)), min_seconds=9_000.0,
                       max_seconds=90_000.0))  # fmt: skip
    story.command(Command.PROMOTE)
    story.after(1).measure(1, 1)
    assert story.state.pending == []
    return story


def test_batches_of_a_moment_wait_for_the_next_look() -> None:
    """The first one after a pause is looked at at once; those right behind it together."""
    story = rolling()
    for _ in range(5):
        story.after(SOON).measure(10, 10)
    assert (len(story.state.pending), story.state.measured) == (5, 2)
    story.after(LOOK_MS / 1000).measure(10, 10)
    assert (len(story.state.pending), story.state.measured) == (0, 122)


@pytest.mark.parametrize("what", ["tick", "beat", "command", "bytes", "revision", "segments"])
def test_whatever_else_comes_looks_first(what: str) -> None:
    """Nothing overtakes a measurement: what was measured before is counted before."""
    story = rolling()
    story.after(SOON).measure(10, 10)
    assert story.state.pending
    story.after(SOON)
    match what:
        case "tick":
            story.tick()
        case "beat":
            story.beat("w2")
        case "command":
            story.command(Command.PAUSE)
        case "bytes":
            story.raw(b"nonsense")
        case "revision":
            story.measure(1, 1, revision=1)
        case "segments":
            columns = rows_of(range(1000, 1001))
            story.record(measurement(columns, revision=2, segments=["pro", "rest"]))
    assert story.state.measured >= 22
    assert story.state.watch is not None
    assert story.state.watch.candidate_rows == [11]


def test_a_decision_may_fall_on_the_next_record() -> None:
    """What the waiting batches decide is caused by the record that ended the wait."""
    story = rolling()
    story.after(SOON).measure(0, 400, coherence=0.1)
    assert not of_type(story.outputs, RolloutRolledBack)
    story.after(0.05).tick()
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.cause.offset == story.entries[-1].offset
    # The time is that of what was measured.
    assert event.at_ms == story.entries[-2].timestamp_ms


def test_a_bad_batch_among_good_ones_is_named_and_alone() -> None:
    """The others count; the alert says which record it was."""
    story = rolling()
    before = story.state.measured
    story.after(SOON).measure(10, 10)
    bad = rows_of(range(50_000, 50_003), score=np.nan)
    story.after(SOON).record(measurement(bad, revision=story.state.rollout.revision))
    at = story.entries[-1].offset
    story.after(SOON).measure(10, 10)
    story.after(1).tick()
    assert (story.state.undecodable, story.state.measured - before) == (1, 40)
    (alert,) = of_type(story.outputs, AlertEvent)
    assert f"record {at} of partition 0" in alert.summary
    assert "column score" in alert.summary


def test_only_bad_batches_are_nothing() -> None:
    """Several of them at once neither count nor stop anything."""
    story = rolling()
    for n in range(3):
        bad = rows_of(range(100 * n, 100 * n + 3), score=np.nan)
        story.after(SOON).record(measurement(bad, revision=story.state.rollout.revision))
    story.after(1).tick()
    assert (story.state.undecodable, story.state.measured) == (3, 2)


def test_rows_count_in_the_pane_in_which_they_came() -> None:
    """A wait ends with its pane: windows do not depend on how long somebody may wait."""
    story = rolling()
    pane_ms = story.state.policy.windows.pane_ms
    story.now_ms = (story.now_ms // pane_ms + 2) * pane_ms - 6
    story.measure(5, 5)
    story.after(0.003).measure(10, 10)
    assert story.state.pending
    story.after(0.004).measure(20, 20)
    story.after(0.02).tick()
    counted = [int(p.totals["rest"][1].counts[0]) for p in story.state.panes[-2:]]
    assert counted == [15, 20]


def test_too_much_never_waits() -> None:
    """What waits is in every checkpoint: beyond a number of rows it is looked at at once."""
    story = rolling()
    story.after(SOON).measure(0, LOOK_ROWS)
    assert story.state.pending == []


def test_what_waits_survives_a_restart() -> None:
    """A snapshot holds it; the restored fold goes on as the undisturbed one does."""
    story = rolling()
    story.after(SOON).measure(10, 400, coherence=0.1)
    again = restore(snapshot(story.state))
    assert snapshot(again) == snapshot(story.state)
    assert len(again.pending) == 1


def test_a_fenced_worker_does_not_join() -> None:
    """Its rows are dropped, and do not hold up those of others."""
    story = rolling()
    story.beat("w1", revision=1)
    for _ in range(40):
        story.after(1).beat("w1", revision=1)
    assert story.state.workers["w1"].fenced
    story.measure(10, 10, revision=1)
    story.after(3).tick()
    assert (story.state.measured, story.state.fenced_rows) == (2, 20)
    assert of_type(story.outputs, GateStatus)[-1].fenced_workers == ["w1"]
    # It has caught up: what it measures from now on counts.
    story.after(1).beat("w1")
    story.measure(10, 10)
    assert story.state.measured == 22


def test_rates_are_those_of_all_rows() -> None:
    """Counted one by one or together, a rollout sees the same rows and the same rate."""
    one, together = rolling("semantic-errors"), rolling("semantic-errors")
    flags = np.where(np.arange(200) == 0, RowFlag.FALLBACK, RowFlag.SEMANTIC)
    for _ in range(30):
        one.after(0.02).measure(200, 200, flags=flags)
        together.after(0.001).measure(200, 200, flags=flags)
    seen = []
    for story in (one, together):
        story.after(1).tick()
        assert story.state.watch is not None
        evidence = story.state.watch.evidence[0]
        seen.append((story.state.measured, evidence.samples, evidence.value))
    assert seen[0] == seen[1]
    assert seen[0][1] == 6001


def test_segments_of_a_policy_do_not_keep_batches_apart() -> None:
    """Workers name all segments in the same order, so that batches can be counted together."""
    story = Story()
    segments = [Segment(name="pro", attribute="plan", values=["pro"])]
    story.start(policy(gate("coherence"), segments=segments))
    story.after(1).measure(1, 1)
    for n in range(3):
        columns = rows_of([1000 + n], segment=n % 2)
        story.after(SOON).record(
            measurement(columns, revision=story.state.rollout.revision, segments=["pro", "rest"])
        )
    assert len(story.state.pending) == 3
    story.after(1).tick()
    totals = story.state.panes[-2].totals
    assert {name: int(arms[0].counts[0]) for name, arms in totals.items()} == {"pro": 2, "rest": 2}
