"""The console's database: SQLite, one file, written in one transaction with where it was read.

What stands in it follows from the topics up to the offsets that stand beside it. So the console may
be away, or be killed at any time, and goes on without a gap and without counting twice.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streams.console.model import DECISIONS_KEPT
from streams.console.rows import (
    GatePoint,
    Item,
    ItemKind,
    Row,
    ScoreCounts,
    WindowPoint,
    WorkerPoint,
)
from streams.console.sign_in import Session
from streams.errors import StoreError

__all__ = ["Place", "Store"]

log = logging.getLogger("driftgate.console")

VERSION = 1
"""Of the tables: another one is made anew from the topics."""
_BUSY_S = 10.0
_POINTS = (WindowPoint, GatePoint, WorkerPoint)


class Place(NamedTuple):
    """A partition of a topic, by its full name."""

    topic: str
    partition: int


_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE positions (topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition));
CREATE TABLE items (service TEXT, kind TEXT, key TEXT, at_ms INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (service, kind, key));
CREATE INDEX items_by_time ON items (kind, at_ms);
CREATE TABLE window_points (service TEXT, arm TEXT, start_ms INTEGER, end_ms INTEGER, share REAL,
    prompts INTEGER, rejected INTEGER, system_errors INTEGER, semantic_prompts INTEGER,
    semantic_errors INTEGER, cache_lookups INTEGER, cache_hits INTEGER,
    processing_seconds_mean REAL, processing_seconds_p50 REAL, processing_seconds_p95 REAL,
    processing_seconds_p99 REAL, rules_score_mean REAL, score_mean REAL, coherence_mean REAL,
    relevance_mean REAL, satisfaction_samples INTEGER, satisfaction_mean REAL,
    accuracy_samples INTEGER, accuracy_mean REAL, UNIQUE (service, arm, start_ms, end_ms));
CREATE INDEX windows_by_time ON window_points (service, end_ms);
CREATE TABLE gate_points (service TEXT, gate TEXT, at_ms INTEGER, verdict TEXT, samples INTEGER,
    value REAL, lower REAL, upper REAL, limit_value REAL, UNIQUE (service, gate, at_ms));
CREATE INDEX gates_by_time ON gate_points (service, at_ms);
CREATE TABLE worker_points (service TEXT, worker TEXT, at_ms INTEGER, rss_bytes INTEGER,
    cpu_share REAL, prompts_per_s REAL, lag_messages INTEGER, UNIQUE (service, worker, at_ms));
CREATE INDEX workers_by_time ON worker_points (service, at_ms);
CREATE TABLE score_counts (service TEXT, arm TEXT, minute_ms INTEGER, rows INTEGER,
    processing_seconds REAL, embed_seconds REAL, relevance BLOB, coherence BLOB,
    UNIQUE (service, arm, minute_ms));
CREATE INDEX scores_by_time ON score_counts (service, minute_ms);
CREATE TABLE sessions (key TEXT PRIMARY KEY, token_id TEXT NOT NULL, expires_ms INTEGER NOT NULL);
"""
_OF_TOPICS = (
    "positions", "items", "window_points", "gate_points", "worker_points", "score_counts",
)  # fmt: skip
_TIMES = {
    "window_points": "end_ms",
    "gate_points": "at_ms",
    "worker_points": "at_ms",
    "score_counts": "minute_ms",
}
_AGING = (ItemKind.DECISION, ItemKind.CASE)


class Store:
    """One database; blocks, and may be used from any thread.

    Args:
        path: of its file; its folder is made.

    Raises:
        StoreError: it cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the database {path} cannot be used: {error}; name another folder with "
                "DRIFTGATE_CONSOLE_DIR"
            ) from error

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.OperationalError:
            # Locked, no rights, no room: the file itself may be sound.
            raise
        except sqlite3.DatabaseError as error:
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            log.error(
                "%s is damaged (%s): it is kept as %s, and made anew from the topics",
                self._path, error, aside.name,
            )  # fmt: skip
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._connect()

    def _connect(self) -> None:
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._writer.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last transactions, offsets and all: they are read again.
        self._writer.execute("PRAGMA synchronous = NORMAL")
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            self._make_tables(version)
        self._path.chmod(0o600)
        self._reader = sqlite3.connect(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._reader.row_factory = sqlite3.Row

    def _make_tables(self, version: int) -> None:
        if version:
            log.warning("%s is of version %d and is made anew from the topics", self._path, version)
        with self._transaction() as db:
            names = db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            for (name,) in names:
                db.execute(f'DROP TABLE "{name}"')
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with self._writing:
            try:
                # Commits, or rolls back.
                with self._writer:
                    self._writer.execute("BEGIN IMMEDIATE")
                    yield self._writer
            except sqlite3.Error as error:
                raise StoreError(f"the database {self._path} cannot be written: {error}") from error

    def query(self, sql: str, parameters: Mapping[str, object] = {}) -> list[sqlite3.Row]:
        """Read rows."""
        with self._reading:
            return self._reader.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def write(self, rows: Iterable[Row], positions: Mapping[Place, int]) -> None:
        """Keep rows and how far the topics were read, both or neither.

        Raises:
            StoreError: nothing was kept: the disk is full, or the like. Try again.
        """
        with self._transaction() as db:
            for row in _newest(rows):
                _put(db, row)
            db.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(*place, offset) for place, offset in positions.items()],
            )

    def positions(self) -> dict[Place, int]:
        """How far each partition was read: the next offset."""
        rows = self.query("SELECT topic, partition, next_offset FROM positions")
        return {Place(topic, partition): offset for topic, partition, offset in rows}

    def items(self) -> list[Item]:
        """What the read model is made of, in the order in which it came."""
        rows = self.query(
            "SELECT service, kind, key, at_ms, value FROM ("
            " SELECT *, rowid AS place, ROW_NUMBER() OVER"
            "  (PARTITION BY service, kind ORDER BY rowid DESC) AS back FROM items)"
            " WHERE kind <> :decision OR back <= :kept ORDER BY place",
            {"decision": ItemKind.DECISION, "kept": DECISIONS_KEPT},
        )
        return [Item(r["service"], ItemKind(r["kind"]), r["key"], r["at_ms"], r["value"])
                for r in rows]  # fmt: skip

    def cluster(self) -> str | None:
        """The Kafka cluster that the database is of."""
        rows = self.query("SELECT value FROM meta WHERE name = 'cluster'")
        return rows[0]["value"] if rows else None

    def begin_cluster(self, cluster: str) -> None:
        """Forget what another cluster said: offsets mean nothing here."""
        with self._transaction() as db:
            for table in _OF_TOPICS:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of our own
            db.execute("INSERT OR REPLACE INTO meta VALUES ('cluster', ?)", (cluster,))

    def prune(self, before_ms: int, most_rows: int) -> int:
        """Delete what is old, and the oldest of what is too much; how many rows.

        Args:
            before_ms: older than this, ms since the epoch.
            most_rows: of each table.
        """
        deleted = 0
        with self._transaction() as db:
            for table, column in _TIMES.items():
                # S608: names of our own.
                old = f"DELETE FROM {table} WHERE {column} < ?"  # noqa: S608
                last = f"SELECT MAX(rowid) FROM {table}"  # noqa: S608
                beyond = f"DELETE FROM {table} WHERE rowid <= ({last}) - ?"  # noqa: S608
                deleted += db.execute(old, (before_ms,)).rowcount
                deleted += db.execute(beyond, (most_rows,)).rowcount
            for kind in _AGING:
                sql = "DELETE FROM items WHERE kind = ? AND at_ms < ?"
                deleted += db.execute(sql, (kind, before_ms)).rowcount
            db.execute("DELETE FROM sessions WHERE expires_ms < ?", (before_ms,))
        return deleted

    def put_session(self, session: Session) -> None:
        """Keep a sign-in."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
                (session.key, session.token_id, session.expires_ms),
            )

    def session(self, key: str) -> Session | None:
        """A sign-in by its key."""
        rows = self.query("SELECT * FROM sessions WHERE key = :key", {"key": key})
        return Session(**dict(rows[0])) if rows else None

    def drop_session(self, key: str) -> None:
        """End a sign-in."""
        with self._transaction() as db:
            db.execute("DELETE FROM sessions WHERE key = ?", (key,))


def _newest(rows: Iterable[Row]) -> list[Row]:
    """Without the items that a later one of the same key replaces."""
    kept: list[Row] = []
    items: dict[tuple[str, str, str], Item] = {}
    for row in rows:
        if isinstance(row, Item):
            key = (row.service, row.kind, row.key)
            items.pop(key, None)
            items[key] = row
        else:
            kept.append(row)
    return [*kept, *items.values()]


def _put(db: sqlite3.Connection, row: Row) -> None:
    match row:
        case Item(value=None):
            db.execute(
                "DELETE FROM items WHERE service = ? AND kind = ? AND key = ?",
                (row.service, row.kind, row.key),
            )
        case Item():
            db.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                (row.service, row.kind, row.key, row.at_ms, row.value),
            )
        case ScoreCounts():
            _add(db, row)
        case _:
            db.execute(_INSERT[type(row)], [getattr(row, n) for n in row.__struct_fields__])


def _add(db: sqlite3.Connection, row: ScoreCounts) -> None:
    known = db.execute(
        "SELECT rows, processing_seconds, embed_seconds, relevance, coherence FROM score_counts"
        " WHERE service = ? AND arm = ? AND minute_ms = ?",
        (row.service, row.arm, row.minute_ms),
    ).fetchone()
    numbers = (row.rows, row.processing_seconds, row.embed_seconds)
    counts = [np.array(c, dtype="<u4") for c in (row.relevance, row.coherence)]
    if known is not None:
        numbers = (known[0] + numbers[0], known[1] + numbers[1], known[2] + numbers[2])
        counts = [c + np.frombuffer(k, dtype="<u4") for c, k in zip(counts, known[3:], strict=True)]
    db.execute(
        "INSERT INTO score_counts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " rows = excluded.rows, processing_seconds = excluded.processing_seconds,"
        " embed_seconds = excluded.embed_seconds, relevance = excluded.relevance,"
        " coherence = excluded.coherence",
        (row.service, row.arm, row.minute_ms, *numbers, *(c.tobytes() for c in counts)),
    )


def _insert(kind: type[WindowPoint | GatePoint | WorkerPoint]) -> str:
    table = {WindowPoint: "window_points", GatePoint: "gate_points", WorkerPoint: "worker_points"}
    fields = kind.__struct_fields__
    places = ", ".join("?" * len(fields))
    # S608: all of it is names of our own.
    return f"INSERT OR REPLACE INTO {table[kind]} ({', '.join(fields)}) VALUES ({places})"  # noqa: S608


_INSERT = {kind: _insert(kind) for kind in _POINTS}
