"""The console's database: written whole or not at all, made anew when it must be."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import cloudevents
from schemas.control import ControlEvent, RollbackConfirmed, RolloutRolledBack
from streams.console.history import Range, history
from streams.console.model import ConsoleModel
from streams.console.rows import (
    BINS,
    GatePoint,
    Item,
    ItemKind,
    ScoreCounts,
    WindowPoint,
    WorkerPoint,
)
from streams.console.sign_in import Session
from streams.console.store import Place, Store
from streams.errors import StoreError
from tests.support.folding import T0_MS
from tests.support.samples import sample

HOUR_MS = 3_600_000
EVERYTHING = Range(T0_MS, T0_MS + HOUR_MS)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(tmp_path / "console.db")
    yield made
    made.close()


def item(key: str, kind: ItemKind = ItemKind.CASE, at_ms: int = 0, value: Any = b"1") -> Item:
    return Item("shop", kind, key, at_ms, value)


def window(start_s: int, arm: str = "control", **changes: Any) -> WindowPoint:
    start_ms = T0_MS + start_s * 1000
    numbers = {n: 0 for n in WindowPoint.__struct_fields__ if "mean" not in n and "_p" not in n}
    quantiles = {n: None for n in WindowPoint.__struct_fields__ if n not in numbers}
    known = {"service": "shop", "arm": arm, "start_ms": start_ms, "end_ms": start_ms + 60_000}
    return WindowPoint(**{**numbers, **quantiles, **known, "share": 0.5, **changes})


def counts(rows: int, arm: str = "control", minute: int = 0) -> ScoreCounts:
    return ScoreCounts(
        service="shop", arm=arm, minute_ms=T0_MS + minute * 60_000, rows=rows,
        processing_seconds=rows * 0.2, embed_seconds=rows * 0.1,
        relevance=[0] * (BINS - 1) + [rows], coherence=[rows] + [0] * (BINS - 1),
    )  # fmt: skip


def test_rows_and_positions_are_kept_together(store: Store) -> None:
    """What was read and how far are one transaction: neither without the other."""
    place = Place("driftgate.control", 0)
    store.write([item("a")], {place: 5})
    broken = msgspec.structs.replace(item("b"), at_ms=2**80)
    with pytest.raises((StoreError, OverflowError)):
        store.write([item("c"), broken], {place: 9})
    assert [i.key for i in store.items()] == ["a"]
    assert store.positions() == {place: 5}


def test_items_come_back_in_the_order_in_which_they_were_kept(store: Store) -> None:
    """A later one of the same key replaces the one before, and None takes it out."""
    store.write([item("a"), item("b"), item("a", value=b"2")], {})
    store.write([item("c"), item("b", value=None)], {})
    assert [(i.key, i.value) for i in store.items()] == [("a", b"2"), ("c", b"1")]


def test_only_the_last_decisions_are_loaded(store: Store) -> None:
    """A year of decisions does not have to fit into memory; they stay for the history."""
    store.write([item(str(n), ItemKind.DECISION, at_ms=n) for n in range(500)], {})
    loaded = store.items()
    assert [loaded[0].key, loaded[-1].key, len(loaded)] == ["300", "499", 200]


def test_another_cluster_begins_anew(store: Store) -> None:
    """Offsets of another cluster mean nothing; who has signed in is of no cluster."""
    store.begin_cluster("one")
    store.write([item("a"), window(0), counts(1)], {Place("t", 0): 5})
    store.put_session(Session(key="k", token_id="t", expires_ms=1))  # noqa: S106 - an id
    store.begin_cluster("two")
    assert (store.cluster(), store.items(), store.positions()) == ("two", [], {})
    assert store.query("SELECT COUNT(*) AS n FROM window_points")[0]["n"] == 0
    assert store.session("k") is not None


def test_what_is_old_or_too_much_is_deleted(store: Store) -> None:
    """Retention by age and by rows; what is open now is neither old nor too much."""
    store.write([window(s) for s in range(0, 600, 10)], {})
    store.write(
        [item("old", ItemKind.DECISION), item("new", ItemKind.DECISION, T0_MS + 200_000)], {}
    )
    store.write([item("open", ItemKind.ALERT)], {})
    assert store.prune(T0_MS + 60_000 + 100_000, 1_000_000) == 10 + 1
    assert store.prune(0, 20) == 30
    left = store.query("SELECT MIN(end_ms) AS first, COUNT(*) AS n FROM window_points")[0]
    assert (left["n"], left["first"]) == (20, T0_MS + 460_000)
    assert {i.key for i in store.items()} == {"new", "open"}


def test_counts_of_a_minute_add_up(store: Store) -> None:
    """Each batch adds to its minute, over restarts of the console too."""
    store.write([counts(3), counts(4)], {})
    store.write([counts(5, "candidate"), counts(1, minute=1)], {})
    found = history(store, "shop", EVERYTHING)["scores"]
    assert [c["rows"] for c in found["columns"]] == [12, 1]
    assert found["columns"][0]["relevance"][-1] == found["columns"][0]["coherence"][0] == 12
    assert found["columns"][0]["embed"] / found["columns"][0]["processing"] == pytest.approx(0.5)


def test_a_damaged_file_is_set_aside_and_made_anew(tmp_path: Path) -> None:
    """The console starts, and what was damaged is kept for whoever wants to look."""
    path = tmp_path / "console.db"
    path.write_bytes(b"this is no database" * 1000)
    store = Store(path)
    assert store.items() == []
    store.close()
    assert [p for p in tmp_path.iterdir() if "damaged" in p.name]


def test_another_version_of_the_tables_is_made_anew(tmp_path: Path) -> None:
    """A database of another version of driftgate is read again from the topics."""
    path = tmp_path / "console.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE items (something TEXT)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    store = Store(path)
    assert store.items() == []
    store.write([item("a")], {})
    store.close()
    assert [i.key for i in Store(path).items()] == ["a"]


def test_a_folder_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    """The error names the file and the variable that says where it is."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="DRIFTGATE_CONSOLE_DIR"):
        Store(tmp_path / "file" / "console.db")


def test_a_full_disk_loses_nothing(store: Store) -> None:
    """What cannot be kept raises an error, and is kept when it is tried again with room."""
    pages = store.query("PRAGMA page_count")[0][0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = [item(str(n), value=b"x" * 1000) for n in range(200)]
    with pytest.raises(StoreError, match="full"):
        store.write(many, {Place("t", 0): 200})
    assert store.items() == []
    assert store.positions() == {}
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.write(many, {Place("t", 0): 200})
    assert len(store.items()) == 200


@pytest.mark.usefixtures("store")
def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds prompts and sessions."""
    assert stat.S_IMODE((tmp_path / "console.db").stat().st_mode) == 0o600


def test_a_chart_has_at_most_so_many_points_and_hides_no_spike(store: Store) -> None:
    """Steps of a long range show the worst quantile, and means weighed by prompts."""
    rows = [
        window(s, prompts=10, processing_seconds_p95=0.1, score_mean=0.5)
        for s in range(0, 3500, 10)
    ]
    rows[100] = window(1000, prompts=30, processing_seconds_p95=9.0, score_mean=0.9)
    store.write(rows, {})
    found = history(store, "shop", EVERYTHING)["windows"]["control"]
    assert len(found["at_ms"]) <= 240
    assert found["at_ms"] == sorted(found["at_ms"])
    assert max(found["processing_seconds_p95"]) == 9.0
    spike = found["processing_seconds_p95"].index(9.0)
    assert found["score_mean"][spike] == pytest.approx((0.5 * 10 + 0.9 * 30) / 40)
    assert found["satisfaction_mean"][0] is None


def test_availability_counts_each_prompt_once(store: Store) -> None:
    """Windows overlap; of those that do not, the prompts are added up (M60, M68)."""
    store.write([window(s, prompts=99, system_errors=1) for s in range(0, 600, 10)], {})
    found = history(store, "shop", EVERYTHING)["reliability"]
    assert (found["prompts"], found["system_errors"]) == (99 * 10, 10)
    assert found["availability"] == pytest.approx(0.99)


def test_rollbacks_and_their_recovery_are_counted(store: Store) -> None:
    """The worst recovery time of the range is shown, and decisions are markers (M60)."""
    rolled_back = msgspec.structs.replace(
        sample(RolloutRolledBack), id="1", at_ms=T0_MS + 1, rollout_id="r"
    )
    confirmed = [
        msgspec.structs.replace(
            sample(RollbackConfirmed), id=str(ms), at_ms=T0_MS + 2, rollout_id="r", confirmed_ms=ms
        )
        for ms in (900, 100)
    ]
    events: list[ControlEvent] = [rolled_back, *confirmed]
    store.write(
        [item(e.id, ItemKind.DECISION, e.at_ms, cloudevents.encode_json(e)) for e in events], {}
    )
    # Of an older version of the contract, which had no such event.
    store.write([item("old", ItemKind.DECISION, T0_MS, b'{"type": "rollout.blessed"}')], {})
    found = history(store, "shop", EVERYTHING)
    assert found["reliability"]["rollbacks"] == 1
    assert found["reliability"]["recovery_ms"] == 900
    assert [m["kind"] for m in found["markers"]] == [
        "rollout.rolled_back", "rollback.confirmed", "rollback.confirmed",
    ]  # fmt: skip
    assert [line.phase for line in found["rollouts"]] == ["rolled_back"]
    assert history(store, "shop", Range(T0_MS + 3, T0_MS + 4))["decisions"] == []


def test_points_of_gates_and_workers_come_back_by_name(store: Store) -> None:
    """The last report of each step of a sparkline."""
    store.write(
        [
            GatePoint(service="shop", gate="g", at_ms=T0_MS + n * 1000, verdict="failed", samples=n,
                      value=n / 100, lower=None, upper=None, limit_value=0.5)
            for n in range(3600)
        ]
        + [
            WorkerPoint(service="shop", worker="w", at_ms=T0_MS + n * 15_000, rss_bytes=100 + n,
                        cpu_share=None, prompts_per_s=2.0, lag_messages=n)
            for n in range(200)
        ],
        {},
    )  # fmt: skip
    found = history(store, "shop", EVERYTHING)
    assert len(found["gates"]["g"]["at_ms"]) == 60
    assert found["gates"]["g"]["value"][0] == pytest.approx(0.59)
    assert len(found["workers"]["w"]["at_ms"]) <= 60
    assert found["workers"]["w"]["cpu_share"][0] is None
    assert history(store, "other", EVERYTHING)["gates"] == {}


def test_a_model_begins_from_the_database(store: Store) -> None:
    """What a first process has kept a second one shows."""
    store.write([item("0/1", ItemKind.OFFSETS, value=b'{"prompts/0": 7}')], {})
    model = ConsoleModel()
    model.restore(store.items())
    assert model.services["shop"].source_offsets == {"prompts/0": 7}
