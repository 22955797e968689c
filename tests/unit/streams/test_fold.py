"""The fold: what counts as evidence, when a gate acts, and what a bad record can do."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import (
    Decision,
    GateBreached,
    GateRecovered,
    GateStatus,
    RolloutAdvanced,
    RolloutPaused,
    RolloutRolledBack,
    Verdict,
    WindowMetrics,
)
from schemas.log import COLUMNS, Command, RowFlag, Tick, encode_log_record
from schemas.rollout import Phase
from streams.fold import LOOK_MS, LogEntry, step
from tests.support.folding import (
    SERVICE,
    T0_MS,
    Story,
    gate,
    measurement,
    of_type,
    policy,
    rows_of,
)

COHERENCE = gate("coherence")
CACHE = gate("cache-hits", warmup_seconds=0.0)
SUSTAINED = gate("errors-sustained")
FAILING = {"flags": RowFlag.FALLBACK}


def rolling(*gates: Any, **changes: Any) -> Story:
    """A rollout at 25 %."""
    story = Story()
    story.beat()
    story.start(policy(*gates, **changes))
    story.command(Command.PROMOTE)
    return story


def verdicts(story: Story) -> dict[str, Verdict]:
    """How the gates stood when they were last reported."""
    return {g.gate: g.verdict for g in of_type(story.outputs, GateStatus)[-1].gates}


def test_a_broken_guardrail_rolls_back_at_once() -> None:
    """The batch that makes the breach certain is answered by breach and rollback, with numbers."""
    story = rolling(COHERENCE)
    assert not of_type(story.after(1).measure(0, 199, coherence=0.5), Decision)
    breached, event = of_type(story.after(1).measure(0, 1, coherence=0.5), Decision)
    assert isinstance(breached, GateBreached)
    assert isinstance(event, RolloutRolledBack)
    assert event.gate == breached.gate
    assert event.gate is not None
    assert (event.gate.value, event.gate.limit, event.gate.samples) == (0.5, 0.7, 200)
    assert "0.5" in event.reason
    assert (event.share, event.workers, event.actor) == (0.0, ["w1"], "driftgate")
    assert event.cause.offset == len(story.entries) - 1
    assert event.at_ms == story.now_ms


def test_a_broken_signal_pauses_once() -> None:
    """A signal keeps the share and asks for a person; it does not ask again with every batch."""
    story = rolling(CACHE)
    for _ in range(5):
        story.after(1).measure(0, 300, flags=RowFlag.CACHE_LOOKUP)
        # The analyzers follow: what comes now was made under the pause.
    assert len(of_type(story.outputs, RolloutPaused)) == 1
    assert len(of_type(story.outputs, GateBreached)) == 1
    assert (story.state.rollout.phase, story.state.rollout.share) == (Phase.PAUSED, 0.25)


def test_a_signal_that_holds_again_is_reported() -> None:
    """The end of a breach is said once, too; the pause stays until a person resumes."""
    story = rolling(CACHE)
    story.after(1).measure(0, 300, flags=RowFlag.CACHE_LOOKUP)
    for _ in range(3):
        story.after(1).measure(0, 300)
    assert len(of_type(story.outputs, GateRecovered)) == 1
    assert story.state.rollout.phase is Phase.PAUSED


def test_guardrails_go_before_signals() -> None:
    """When both are broken at once, traffic is taken back, not left where it is."""
    story = rolling(CACHE, COHERENCE)
    flags = RowFlag.CACHE_LOOKUP | RowFlag.SEMANTIC
    found = of_type(story.after(1).measure(0, 300, flags=flags, coherence=0.1), Decision)
    assert [type(e) for e in found] == [GateBreached, GateBreached, RolloutRolledBack]


def test_a_dry_run_reports_and_does_not_act() -> None:
    """A gate on trial says what it would have done; it neither rolls back nor holds up."""
    story = rolling(msgspec.structs.replace(COHERENCE, dry_run=True), gate("semantic-errors"))
    (event,) = of_type(story.after(61).measure(0, 300, coherence=0.1), GateBreached)
    assert event.gate.dry_run
    assert of_type(story.outputs, RolloutAdvanced)[-1].stage == 2
    assert not of_type(story.outputs, RolloutRolledBack)


def test_a_breach_must_last_where_the_policy_says_so() -> None:
    """Errors for less than five minutes do nothing; for five minutes they roll back."""
    story = rolling(SUSTAINED, max_seconds=86400.0)
    began_ms = story.now_ms + 1000
    for _ in range(300):
        assert not of_type(story.after(1).measure(0, 300, **FAILING), Decision)
    found = of_type(story.after(1).measure(0, 300, **FAILING), Decision)
    assert [type(e) for e in found] == [GateBreached, RolloutRolledBack]
    assert story.now_ms - began_ms == 300_000
    assert "for 300 s of 300 s" in found[0].reason


def test_an_interrupted_breach_begins_anew() -> None:
    """A window without errors in between sets the clock of a lasting breach back."""
    story = rolling(SUSTAINED, max_seconds=86400.0)
    for _ in range(200):
        story.after(1).measure(0, 300, **FAILING)
    for _ in range(61):
        story.after(1).measure(0, 300)
    for _ in range(299):
        assert not of_type(story.after(1).measure(0, 300, **FAILING), RolloutRolledBack)


def test_rows_of_the_warm_up_do_not_count() -> None:
    """A cold cache at the beginning of a stage is no finding, later it is."""
    story = rolling(gate("cache-hits", warmup_seconds=30.0))
    story.after(29).measure(0, 300, flags=RowFlag.CACHE_LOOKUP)
    assert not of_type(story.outputs, GateBreached)
    story.after(1).measure(0, 300, flags=RowFlag.CACHE_LOOKUP)
    (event,) = of_type(story.outputs, GateBreached)
    assert event.gate.samples == 300


@pytest.mark.parametrize("behind", [-1, 1])
def test_rows_of_another_revision_are_no_evidence(behind: int) -> None:
    """What was made under another split is measured, and says nothing about this one."""
    story = rolling(COHERENCE)
    revision = story.state.rollout.revision + behind
    story.after(1).measure(0, 500, coherence=0.1, revision=revision)
    assert story.state.measured == 500
    assert not of_type(story.outputs, GateBreached)
    story.after(2).tick()
    assert verdicts(story)["coherence"] is Verdict.INCONCLUSIVE


def test_each_stage_has_evidence_of_its_own() -> None:
    """Rows of the stage before do not speak for this one, even within the same window."""
    story = rolling(COHERENCE, gate("improvement"), min_seconds=1.0)
    story.after(1).measure(0, 300)
    assert story.state.rollout.stage == 2
    story.after(1).measure(0, 100)
    assert story.state.rollout.stage == 2
    story.after(1).measure(0, 100)
    assert story.state.rollout.stage == 3


def test_old_rows_leave_the_evidence_with_their_window() -> None:
    """A breach is judged on the last minute, not on a long healthy past."""
    story = rolling(COHERENCE, min_seconds=80_000.0, max_seconds=86_400.0)
    for _ in range(100):
        story.after(2).measure(0, 1000)
    for _ in range(30):
        story.after(2).measure(0, 100, coherence=0.5)
        if story.state.rollout.phase is Phase.ROLLED_BACK:
            break
    assert story.state.rollout.phase is Phase.ROLLED_BACK


def test_a_repeated_batch_is_measured_once() -> None:
    """A batch that is delivered again is counted as a repetition, and is no evidence."""
    story = rolling(COHERENCE)
    columns = rows_of(range(150), flags=RowFlag.CANDIDATE | RowFlag.SEMANTIC, coherence=0.1)
    batch = measurement(columns, revision=story.state.rollout.revision)
    for _ in range(3):
        story.after(1).record(batch)
    assert (story.state.measured, story.state.repeated) == (150, 300)
    assert not of_type(story.outputs, GateBreached)


def test_between_rollouts_a_service_is_measured_and_not_judged() -> None:
    """Without a candidate there are windows, and each pane says how much was measured, no gates."""
    story = Story()
    for _ in range(40):
        story.after(2).measure(50)
    assert story.state.measured == 2000
    found = of_type(story.outputs, GateStatus)
    assert [status.measured for status in found] == list(range(50, 2000, 50))
    assert not any(status.gates for status in found)
    assert not of_type(story.outputs, Decision)


def test_gates_are_reported_with_every_pane() -> None:
    """While a rollout is active each closed pane says how every gate stands."""
    story = rolling(COHERENCE, CACHE)
    before = len(story.outputs)
    for _ in range(5):
        story.after(2).measure(0, 100)
    found = of_type(story.outputs[before:], GateStatus)
    assert len(found) == 5
    names = ["coherence", "cache-hits", "sample-ratio"]
    assert [[g.gate for g in status.gates] for status in found] == [names] * 5
    assert [status.measured for status in found] == [0, 100, 200, 300, 400]
    assert found[-1].live_workers == ["w1"]


# What is no record of the log, or one that contradicts itself.
GOOD = rows_of(range(3))
BAD_BATCHES = {
    "nan": rows_of(range(3), score=[0.5, np.nan, 0.5]),
    "infinity": rows_of(range(3), processing_seconds=[np.inf, 0.1, 0.1]),
    "negative": rows_of(range(3), processing_seconds=[-0.1, 0.1, 0.1]),
    "score above one": rows_of(range(3), score=1.5),
    "offsets that fall": rows_of([3, 2, 1]),
    "an offset twice": rows_of([1, 1, 2]),
    "negative offsets": rows_of([-3, -2, -1]),
    "unknown segment": rows_of(range(3), segment=1),
    "unknown arm": rows_of(range(3), flags=256),
}


@pytest.mark.parametrize("columns", BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_batch_that_contradicts_itself_is_counted_and_passed_over(
    columns: dict[str, Any],
) -> None:
    """Not one of its rows is folded, and the next good batch is."""
    story = rolling(COHERENCE)
    assert not of_type(story.record(measurement(columns)), Decision)
    assert (story.state.undecodable, story.state.measured) == (1, 0)
    assert story.state.source_offsets == {}
    story.after(LOOK_MS / 1000).record(measurement(GOOD))
    assert (story.state.undecodable, story.state.measured) == (1, 3)


def test_columns_of_unequal_length_are_passed_over() -> None:
    """A column that is cut short spoils its batch only."""
    story = Story()
    batch = measurement(GOOD)
    for name, dtype in COLUMNS.items():
        for length in (dtype.itemsize, 1):
            cut = getattr(batch, name)[:-length]
            story.after(LOOK_MS / 1000).record(msgspec.structs.replace(batch, **{name: cut}))
    assert (story.state.undecodable, story.state.measured) == (2 * len(COLUMNS), 0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
        b'{"kind": "tick", "service": "shop"}',
        msgspec.msgpack.encode({"kind": "tick"}),
        msgspec.msgpack.encode({"kind": "tock", "service": SERVICE}),
        msgspec.msgpack.encode({"kind": "tick", "service": 7}),
        b"\x82\xa4kind\xa4tick\xa7service\xa2\xff\xfe",
    ],
)
def test_what_is_no_record_is_counted_and_moves_the_clock(value: bytes | None) -> None:
    """Anything may stand in the log: it is counted, time goes on, nothing else changes."""
    story = Story()
    story.measure(3)
    story.after(1).raw(value)
    assert story.state.undecodable == 1
    assert story.state.now_ms == T0_MS + 1000
    assert story.state.measured == 3


def test_a_record_of_another_service_is_counted_and_passed_over() -> None:
    """The key decides whose log it is; a record that claims another service changes nothing."""
    story = Story()
    story.record(measurement(GOOD, service="other"))
    story.record(Tick(service="other"))
    assert (story.state.undecodable, story.state.measured) == (2, 0)


@given(st.binary(max_size=400))
def test_random_bytes_never_stop_the_fold(value: bytes) -> None:
    """Whatever the bytes, the fold goes on."""
    story = Story()
    story.raw(value)
    story.measure(1)
    assert story.state.measured == 1


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_flipped_byte_never_stops_the_fold(place: int, byte: int) -> None:
    """A record that was damaged on its way is folded or counted; neither is fatal."""
    story = rolling(COHERENCE)
    for entry in list(story.entries):
        value = bytearray(entry.value or b"")
        value[place % len(value)] = byte
        story.raw(bytes(value))
    story.after(1).tick()


def test_a_clock_that_goes_back_stands_still() -> None:
    """Log time never falls: neither panes nor stages come undone, and nothing is lost."""
    story = rolling(COHERENCE)
    story.after(30).measure(0, 10)
    now_ms = story.state.now_ms
    story.after(-3600).measure(0, 10)
    story.tick()
    assert (story.state.now_ms, story.state.measured) == (now_ms, 20)
    story.after(7200).tick()
    assert story.state.now_ms == now_ms + 3_600_000


def test_records_that_were_folded_before_change_nothing() -> None:
    """An older offset is answered by silence."""
    story = rolling(COHERENCE)
    story.after(1).measure(0, 300, coherence=0.1)
    before = len(story.outputs)
    for entry in story.entries:
        assert step(story.state, entry) == []
    assert len(story.outputs) == before


def test_records_of_others_between_its_own_do_not_matter() -> None:
    """Gaps between the offsets of a service's own records change no window."""
    rng = random.Random(7)
    tight, loose = Story(), Story()
    offset = 0
    for _ in range(50):
        seconds = rng.random() * 5
        value = encode_log_record(Tick(service=SERVICE))
        tight.after(seconds).raw(value)
        offset += rng.randrange(1, 5)
        loose.outputs += step(loose.state, LogEntry(0, offset, tight.now_ms, value))
    windows = of_type(tight.outputs, WindowMetrics)
    assert windows == of_type(loose.outputs, WindowMetrics)
