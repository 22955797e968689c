"""The read model: what an event changes, and that what is kept of it gives the page back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import cloudevents
from schemas.control import AlertEvent, AlertStatus, GateStatus, RolloutStarted, WindowMetrics
from schemas.errors import DecodeError
from schemas.log import Command, Heartbeat, MeasurementBatch, Tick, encode_log_record
from schemas.topics import Topic
from streams.console.decode import CaseGone, Taken, decode
from streams.console.model import CASES_KEPT, FORGET_MS, SAMPLE_MS, ConsoleModel, Section
from streams.console.rows import GatePoint, Item, ItemKind, Row, ScoreCounts, WindowPoint
from streams.console.views import encode_section
from tests.support.folding import SERVICE, T0_MS, heartbeat, measurement, rows_of
from tests.support.samples import sample
from tests.support.staging import Staged, staged_policy


def newest(rows: list[Row]) -> list[Item]:
    """What a database would hold: the newest item of each key, in order of arrival."""
    kept: dict[tuple[str, str, str], Item] = {}
    for row in rows:
        if isinstance(row, Item):
            kept.pop((row.service, row.kind, row.key), None)
            if row.value is not None:
                kept[row.service, row.kind, row.key] = row
    return list(kept.values())


def pages(model: ConsoleModel, now_ms: int) -> dict[tuple[str, Section], bytes]:
    """Everything that the page would show."""
    return {
        (service, section): encode_section(section, model, service, now_ms, most_workers=4)
        for service in model.services
        for section in Section
    }


def told(*events: tuple[Taken, int]) -> tuple[ConsoleModel, list[Row]]:
    model, rows = ConsoleModel(), []
    for event, at_ms in events:
        rows += model.take(event, at_ms).rows
    return model, rows


def staged() -> list[tuple[Taken, int]]:
    """A short story of a service, with everything that the console reads."""
    shop = Staged(SERVICE, now_ms=T0_MS)
    shop.rolled_out(4, staged_policy(20.0))
    shop.go_on(60, error_rate=0.4)
    shop.outputs.append(shop.drifted())
    shop.command(Command.RETRY)
    shop.go_on(20)
    events: list[tuple[Taken, int]] = [(o.event, o.at_ms) for o in shop.outputs]
    for at_ms, value in shop.log:
        found = decode(Topic.LOG, None, value, [])
        assert found is not None
        events.append((found, at_ms))
    events += [(shop.case(f"prompt {n}"), T0_MS + n) for n in range(3)]
    return sorted(events, key=lambda each: each[1])


STAGED = staged()


@settings(max_examples=15)
@given(st.integers(0, len(STAGED)), st.randoms(use_true_random=False))
def test_what_is_kept_gives_the_page_back(count: int, random: Any) -> None:
    """After a restart at any moment the page shows what was shown, and goes on the same way.

    What a worker did within the sampling step is the one thing that comes again by itself.
    """
    events = [e for e in STAGED if not isinstance(e[0], Heartbeat)][:count]
    rest = [e for e in STAGED if not isinstance(e[0], Heartbeat)][
        count : count + random.randint(0, 40)
    ]
    model, rows = told(*events)
    restored = ConsoleModel()
    restored.restore(newest(rows))
    assert pages(restored, T0_MS) == pages(model, T0_MS)
    for event, at_ms in rest:
        model.take(event, at_ms)
        restored.take(event, at_ms)
    assert pages(restored, T0_MS) == pages(model, T0_MS)


@settings(max_examples=15)
@given(st.data())
def test_a_repetition_changes_nothing_but_numbers_of_workers(data: st.DataObject) -> None:
    """Decisions and measurements that come again are neither shown nor counted twice."""
    events = [e for e in STAGED if isinstance(e[0], RolloutStarted | MeasurementBatch)]
    once, rows = told(*events)
    again = data.draw(st.lists(st.sampled_from(events), max_size=20))
    repeated = [row for event, at_ms in again for row in once.take(event, at_ms).rows]
    assert not [row for row in repeated if not isinstance(row, Item)]
    measured = sum(row.rows for row in rows if isinstance(row, ScoreCounts))
    semantic = sum(
        int((batch.rows().flags & 4 != 0).sum() - ((batch.rows().flags & 6) == 6).sum())
        for batch, _ in events
        if isinstance(batch, MeasurementBatch)
    )
    assert measured == semantic


def window(start_s: int, *, final: bool = False, arm: str = "control", prompts: int = 1) -> Any:
    start_ms = T0_MS + start_s * 1000
    return msgspec.structs.replace(
        sample(WindowMetrics),
        service=SERVICE, arm=arm, segment="all", start_ms=start_ms, end_ms=start_ms + 60_000,
        final=final, prompts=prompts,
    )  # fmt: skip


def test_the_window_that_began_first_is_shown() -> None:
    """Of the windows that fill at a time the fullest is shown, until it is over."""
    model = ConsoleModel()

    def shown() -> int:
        found = model.services[SERVICE].windows["control/all"].start_ms
        return (found - T0_MS) // 1000

    for start in (0, 10, 20):
        model.take(window(start), T0_MS)
    assert shown() == 0
    model.take(window(0, final=True), T0_MS)
    assert shown() == 0
    for start in (10, 20, 30):
        model.take(window(start), T0_MS)
    assert shown() == 10
    # After a silence there are windows that do not overlap with it at all.
    model.take(window(600), T0_MS)
    assert shown() == 600


def test_only_final_windows_of_all_segments_make_curves() -> None:
    """A provisional window is shown and not kept as a point, a segment's neither."""
    model = ConsoleModel()
    part = msgspec.structs.replace(window(0, final=True), segment="testers")
    rows = [
        row
        for event in (window(0), part, window(0, final=True, prompts=7))
        for row in model.take(event, T0_MS).rows
        if isinstance(row, WindowPoint)
    ]
    assert [row.prompts for row in rows] == [7]
    assert set(model.services[SERVICE].windows) == {"control/all", "control/testers"}


def test_gates_are_kept_when_something_changes_or_in_steps() -> None:
    """A verdict that changes is kept at once, numbers every few seconds."""
    model = ConsoleModel()
    status = msgspec.structs.replace(sample(GateStatus), service=SERVICE, at_ms=T0_MS)

    def points(after_ms: int, verdict: str) -> int:
        gate = msgspec.structs.replace(status.gates[0], verdict=verdict)
        said = msgspec.structs.replace(status, at_ms=T0_MS + after_ms, gates=[gate])
        return sum(isinstance(row, GatePoint) for row in model.take(said, T0_MS).rows)

    assert points(0, "inconclusive") == 1
    assert points(2_000, "inconclusive") == 0
    assert points(4_000, "failed") == 1
    assert points(4_000 + SAMPLE_MS, "failed") == 1


def test_a_worker_that_is_silent_for_an_hour_is_forgotten() -> None:
    """A process without a stable name does not stay on the page for ever."""
    model = ConsoleModel()
    model.take(heartbeat("old"), T0_MS)
    rows = model.take(heartbeat("new"), T0_MS + FORGET_MS + 1).rows
    assert set(model.services[SERVICE].workers) == {"new"}
    assert Item(SERVICE, ItemKind.WORKER, "old", 0, None) in rows


def test_alerts_are_replaced_by_key_and_old_ones_go() -> None:
    """An alert has one line, whatever becomes of it; of those that are over the last ones stay."""
    model = ConsoleModel()
    alert = msgspec.structs.replace(sample(AlertEvent), service=SERVICE, key="silence/shop")
    for status in (AlertStatus.FIRING, AlertStatus.ESCALATED, AlertStatus.RESOLVED):
        model.take(msgspec.structs.replace(alert, status=status), T0_MS)
    assert [a.status for a in model.services[SERVICE].alerts.values()] == [AlertStatus.RESOLVED]
    for number in range(60):
        over = msgspec.structs.replace(alert, status=AlertStatus.RESOLVED, key=f"k{number}")
        model.take(over, T0_MS)
    assert len(model.services[SERVICE].alerts) == 50
    assert "silence/shop" not in model.services[SERVICE].alerts


def test_cases_are_the_last_ones_and_can_be_taken_out() -> None:
    """A case that the curator has withdrawn disappears; of too many the oldest do."""
    model = ConsoleModel()
    shop = Staged(SERVICE, now_ms=T0_MS)
    for number in range(CASES_KEPT + 5):
        model.take(shop.case(f"prompt {number}"), T0_MS)
    assert len(model.services[SERVICE].cases) == CASES_KEPT
    change = model.take(CaseGone("prompts/0/50"), T0_MS)
    assert change.rows == [Item(SERVICE, ItemKind.CASE, "prompts/0/50", 0, None)]
    assert len(model.services[SERVICE].cases) == CASES_KEPT - 1
    assert model.take(CaseGone("never/seen/0"), T0_MS).rows == []


def test_measurements_of_one_minute_are_spread_over_bins() -> None:
    """Semantic rows count by arm, each once, in the minute of the batch."""
    batch = measurement(rows_of(range(4), flags=[4, 4, 5, 0], relevance=[0.0, 0.99, 1.0, 0.5]))
    model, rows = told((batch, T0_MS + 61_000), (batch, T0_MS + 62_000))
    counts = [row for row in rows if isinstance(row, ScoreCounts)]
    assert [(c.arm, c.minute_ms - T0_MS, c.rows) for c in counts] == [
        ("control", 60_000, 2), ("candidate", 60_000, 1),
    ]  # fmt: skip
    assert counts[0].relevance[0] == counts[0].relevance[-1] == counts[1].relevance[-1] == 1
    assert model.services[SERVICE].source_offsets == {"prompts/0": 4}


@pytest.mark.parametrize(
    "topic", [Topic.ALERTS, Topic.CONTROL, Topic.CURATED, Topic.METRICS, Topic.ROLLOUT]
)
def test_bytes_that_are_no_event_are_said_to_be_none(topic: Topic) -> None:
    """Whatever stands in a topic, it is an event or a DecodeError."""
    for value in (b"", b"{}", b"\xff", b"[" * 100_000):
        with pytest.raises(DecodeError):
            decode(topic, b"shop", value, [])


def test_of_the_log_only_what_is_used_is_read() -> None:
    """Ticks are passed over unread; what says to be a heartbeat and is none is an error."""
    assert decode(Topic.LOG, b"shop", encode_log_record(Tick(service="shop")), []) is None
    assert isinstance(decode(Topic.LOG, b"shop", encode_log_record(heartbeat()), []), Heartbeat)
    with pytest.raises(DecodeError):
        decode(Topic.LOG, b"shop", b"heartbeat and nothing else", [])


def test_a_record_without_a_value_is_nothing_but_a_case_that_is_gone() -> None:
    """Compacted topics have records without values."""
    assert decode(Topic.CURATED, b"prompts/0/1", None, []) == CaseGone("prompts/0/1")
    assert decode(Topic.ROLLOUT, b"shop", None, []) is None
    assert decode(Topic.CURATED, None, None, []) is None


def test_metrics_are_told_apart_by_their_type() -> None:
    """A gate status and a window share a topic."""
    status, metrics = sample(GateStatus), sample(WindowMetrics)
    for event in (status, metrics):
        headers = cloudevents.headers(event, id="1", source="/x", subject="shop", time_ms=0)
        found = decode(Topic.METRICS, b"shop", cloudevents.encode_json(event), headers)
        assert type(found) is type(event)


def test_a_story_has_its_rollouts() -> None:
    """The staged story reaches the page: a rollback, a retry, drift that is open."""
    model, _ = told(*STAGED)
    view = model.services[SERVICE]
    assert view.rollout is not None
    assert view.rollout.phase == "progressing"
    assert [d.feature for d in view.drift.values()] == ["relevance"]
    kinds = [type(d).__name__ for d in view.decisions.values()]
    assert kinds.count("RolloutStarted") == 2
    assert "RolloutRolledBack" in kinds


def test_what_an_older_version_has_kept_stops_nothing() -> None:
    """Events of a contract that had other fields are left out, and the rest is shown."""
    model = ConsoleModel()
    old = Item("shop", ItemKind.DECISION, "1", T0_MS, b'{"type": "rollout.started", "id": "1"}')
    _, rows = told((sample(AlertEvent), T0_MS))
    assert model.restore([old, *newest(rows)]) == 1
    assert len(model.services) == 2
