"""The same log says the same, to the byte: in one go, restored at every record, repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streams.state
from schemas.alerting import AlertRule, AlertRules
from schemas.control import AlertEvent, AlertStatus, GateStatus
from schemas.log import Command, ModelState
from schemas.rollout import Phase, RolloutState
from streams.errors import RecoveryError
from streams.fold import LogEntry, step
from streams.outputs import Output
from streams.replay import KeyedEntry, fold_records
from streams.state import ServiceState, new_state, restore, snapshot
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of, said

POLICY = policy(
    gate("semantic-errors", min_samples=20),
    gate("score-vs-control", min_samples=20),
    gate("errors-sustained", sustained_seconds=20.0, min_samples=20),
    gate("cache-hits", warmup_seconds=0.0, min_samples=20),
    gate("improvement", min_samples=20),
    gate(
        "cache-hits",
        name="trial",
        objective=">= 0.5",
        dry_run=True,
        min_samples=10,
        warmup_seconds=0.0,
    ),
    gate("crashes"),
    gate("model-available", objective="<= 5"),
    gate("memory", warmup_seconds=0.0, min_samples=8),
    alerts=AlertRules(
        escalate_seconds=[3.0, 9.0],
        lag_messages=50,
        lag_seconds=2.0,
        model_unavailable_seconds=1.0,
        silence_seconds=15.0,
    ),
    min_seconds=10.0,
    max_seconds=100.0,
    confirm_seconds=5.0,
)


def any_log(seed: int, length: int = 60) -> Story:
    """A log in which everything happens, as chance has it."""
    rng = random.Random(seed)
    story = Story()
    for _ in range(length):
        story.after(rng.choice([0.0, 0.3, 1.0, 2.5, 11.0, -3.0, rng.random()]))
        match rng.choice(["measure"] * 6 + ["beat", "beat", "command", "start", "bytes", "again"]):
            case "measure":
                story.measure(
                    rng.randrange(40),
                    rng.randrange(40),
                    score=rng.choice([0.6, 0.6, 0.61, 0.3]),
                    processing_seconds=rng.random(),
                    flags=rng.choice([4, 4, 4, 8, 4 | 32, 4 | 32 | 64]),
                )
            case "beat":
                behind = rng.choice([0, 0, 1])
                revision = max(story.state.rollout.revision - behind, 0)
                story.beat(
                    rng.choice("abc"),
                    revision,
                    leaving=rng.random() < 0.1,
                    incarnation=rng.choice(["1", "1", "1", "2"]),
                    model=rng.choice([*[ModelState.READY] * 3, ModelState.UNAVAILABLE]),
                    rss_mb=rng.choice([300.0, 310.0, 900.0]),
                    lag_messages=rng.choice([0, 0, 100]),
                )
            case "command":
                keys = [*story.state.alerts, "no/such/alert"]
                story.command(
                    rng.choice(list(Command)),
                    full=rng.random() < 0.2,
                    alert_key=rng.choice(keys),
                )
            case "start":
                story.start(POLICY)
            case "bytes":
                story.raw(rng.randbytes(rng.randrange(20)))
            case "again" if story.entries:
                story.raw(rng.choice(story.entries).value)
    return story


def folded(entries: Sequence[LogEntry]) -> tuple[list[Output], ServiceState]:
    """A fold in one go."""
    ((state, outputs),) = fold_records(KeyedEntry(b"shop", e) for e in entries).values()
    return outputs, state


@given(st.integers())
@settings(max_examples=40)
def test_folding_twice_says_the_same(seed: int) -> None:
    """Two folds of one log have the same outputs, the same ids and the same state."""
    story = any_log(seed)
    outputs, state = folded(story.entries)
    assert said(outputs) == said(story.outputs)
    assert snapshot(state) == snapshot(story.state)


@given(st.integers())
@settings(max_examples=25)
def test_a_restore_at_every_record_says_the_same(seed: int) -> None:
    """A monitor that is killed and restored after each record never differs from one that lives."""
    story = any_log(seed)
    state, outputs = new_state("shop"), []
    for entry in story.entries:
        state = restore(snapshot(state))
        outputs += step(state, entry)
    assert said(outputs) == said(story.outputs)
    assert snapshot(state) == snapshot(story.state)


@given(st.integers(), st.data())
@settings(max_examples=40)
def test_records_that_come_again_say_nothing_new(seed: int, data: st.DataObject) -> None:
    """A broker that goes back to an earlier offset, any number of times, changes nothing."""
    story = any_log(seed)
    entries: list[LogEntry] = []
    reached = 0
    while reached < len(story.entries):
        back = data.draw(st.integers(min_value=0, max_value=min(reached, 10)))
        forth = data.draw(st.integers(min_value=1, max_value=20))
        entries += story.entries[reached - back : reached + forth]
        reached = max(reached, min(reached + forth, len(story.entries)))
    outputs, state = folded(entries)
    assert said(outputs) == said(story.outputs)
    assert snapshot(state) == snapshot(story.state)


@given(st.integers(), st.integers(min_value=0, max_value=59))
@settings(max_examples=25)
def test_a_crash_before_delivery_repeats_the_same_ids(seed: int, lost: int) -> None:
    """What is folded again after a restore has the ids that it had the first time."""
    story = any_log(seed)
    state = new_state("shop")
    for entry in story.entries[:lost]:
        step(state, entry)
    checkpoint = snapshot(state)
    first = [said(step(state, entry)) for entry in story.entries[lost:]]
    again = restore(checkpoint)
    assert [said(step(again, entry)) for entry in story.entries[lost:]] == first


def test_the_logs_of_these_tests_have_everything_in_them() -> None:
    """Else the properties above would hold of nothing."""
    events: set[str] = set()
    phases: set[Phase] = set()
    statuses: set[AlertStatus] = set()
    rules: set[str] = set()
    for seed in range(60):
        story = any_log(seed)
        phases.update(s.phase for s in of_type(story.outputs, RolloutState))
        statuses.update(a.status for a in of_type(story.outputs, AlertEvent))
        rules.update(a.rule for a in of_type(story.outputs, AlertEvent))
        for output in story.outputs:
            tag = output.event.__struct_config__.tag
            events.add(str(tag or type(output.event).__name__))
    assert phases == set(Phase) - {Phase.IDLE}
    assert statuses == set(AlertStatus)
    assert rules == set(AlertRule) - {AlertRule.COMMAND_UNREADABLE}
    assert events >= {
        "AlertEvent",
        "GateStatus",
        "RolloutState",
        "WindowMetrics",
        "command.rejected",
        "gate.breached",
        "gate.recovered",
        "rollback.confirmed",
        "rollout.advanced",
        "rollout.paused",
        "rollout.promoted",
        "rollout.resumed",
        "rollout.rolled_back",
        "rollout.started",
    }


@given(st.integers())
@settings(max_examples=40)
def test_log_time_and_counts_only_rise(seed: int) -> None:
    """Whatever the clocks, an output is never earlier than the one before it."""
    story = any_log(seed)
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(story.outputs))
    measured = [s.measured for s in of_type(story.outputs, GateStatus)]
    assert measured == sorted(measured)


def test_services_are_folded_apart() -> None:
    """Two services in one partition each have the story that they would have alone."""
    stories = [Story("a"), Story("b")]
    entries: list[KeyedEntry] = []
    rng = random.Random(3)
    for offset in range(200):
        story = rng.choice(stories)
        count = rng.randrange(30)
        batch = measurement(
            rows_of(range(offset * 30, offset * 30 + count)), service=story.state.service
        )
        value = msgspec.msgpack.encode(batch)
        entry = LogEntry(0, offset, 1_800_000_000_000 + offset * 700, value)
        story.outputs += step(story.state, entry)
        entries.append(KeyedEntry(story.state.service.encode(), entry))
    entries.insert(50, KeyedEntry(None, entries[0].entry))
    found = fold_records(entries)
    assert found.keys() == {"a", "b"}
    for story in stories:
        state, outputs = found[story.state.service]
        assert said(outputs) == said(story.outputs)
        assert snapshot(state) == snapshot(story.state)


def busy_state() -> ServiceState:
    """A service as large as they come: full windows, segments, many workers and commands."""
    story = Story()
    rng = np.random.default_rng(1)
    story.start()
    for number in range(300):
        story.command(Command.RESUME, id=f"command-{number}-{'x' * 100}")
    names = ["all", *(f"segment-{n}" for n in range(8))]
    for pane in range(40):
        story.after(2)
        for worker in range(5):
            count = 200
            columns = rows_of(
                range(pane * count, (pane + 1) * count),
                partition=worker,
                flags=rng.integers(0, 2, count) | 4,
                segment=rng.integers(0, 9, count),
                processing_seconds=rng.lognormal(-2, 1, count),
                score=rng.random(count),
            )
            story.record(measurement(columns, worker=f"w{worker}", segments=names, revision=1))
            story.beat(f"w{worker}")
    return story.state


def test_a_snapshot_is_exact_and_small() -> None:
    """Restoring gives the state back to the last bit; a busy service stays below 1 MB."""
    state = busy_state()
    data = snapshot(state)
    assert len(data) < 1_000_000
    back = restore(data)
    assert snapshot(back) == data
    assert back.rollout == state.rollout
    assert back.policy.hash == state.policy.hash
    for pane, other in zip(state.panes, back.panes, strict=True):
        assert pane.moments.tobytes() == other.moments.tobytes()
        assert pane.moments.dtype == other.moments.dtype
        for segment, arms in pane.totals.items():
            for arm, restored in zip(arms, other.totals[segment], strict=True):
                assert arm.sums.tobytes() == restored.sums.tobytes()
                assert arm.histogram.flags.writeable
                assert restored.histogram.flags.writeable


def test_state_does_not_grow_with_the_rows() -> None:
    """Ten times as many rows in a window need no more room."""

    def size(rows: int) -> int:
        story = Story()
        story.start()
        rng = np.random.default_rng(2)
        for _ in range(60):
            seconds = rng.lognormal(-2, 0.5, rows)
            story.after(2).measure(rows, rows, processing_seconds=seconds)
        return len(snapshot(story.state))

    assert size(2000) < 2 * size(200)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x00" * 100, snapshot(new_state("a"))[:-9], msgspec.msgpack.encode([1, 2])],
)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    """A checkpoint that cannot be read is an error that says so, not an empty state."""
    with pytest.raises(RecoveryError):
        restore(data)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
@settings(max_examples=200)
def test_a_damaged_snapshot_is_refused(place: int, change: int) -> None:
    """No flipped byte goes unnoticed or does anything else than be refused."""
    data = bytearray(snapshot(new_state("a")))
    data[place % len(data)] ^= change
    try:
        state = restore(bytes(data))
    except RecoveryError:
        return
    # Only the header of the compressed bytes has bits without a meaning.
    assert snapshot(state) == snapshot(new_state("a"))


def test_a_snapshot_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older or newer format is rebuilt from the log, and the message says which it was."""
    data, ours = snapshot(new_state("a")), streams.state.FORMAT
    monkeypatch.setattr("streams.state.FORMAT", 999)
    with pytest.raises(RecoveryError, match=f"format {ours}, this code reads 999"):
        restore(data)
