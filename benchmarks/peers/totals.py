"""What the Python peers have in common: totals of a window, its result, and how far they are.

Each peer is a script of its own, `PEER.py SERVERS INPUT OUTPUT GROUP ROWS`, and needs nothing of
driftgate.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any, NamedTuple

__all__ = ["HOP_MS", "WINDOW_MS", "Arguments", "Progress", "add", "merge", "new", "result"]

WINDOW_MS = 10_000
HOP_MS = 1_000

_BUCKETS = 64
"""Logarithmic, from 1 ms to 60 s: a quantile is exact to 9 %."""
_LOG_LOWEST = math.log(1e-3)
_LOG_GROWTH = math.log(60.0 / 1e-3) / _BUCKETS

Totals = dict[str, Any]


class Arguments(NamedTuple):
    """What a peer is started with."""

    servers: str
    input: str
    output: str
    group: str
    rows: int

    @classmethod
    def read(cls) -> Arguments:
        """From the command line."""
        servers, source, output, group, rows = sys.argv[1:]
        return cls(servers, source, output, group, int(rows))


def new() -> Totals:
    """Of no rows."""
    return {"count": 0, "sum": 0.0, "errors": 0, "histogram": {}}


def add(totals: Totals, row: dict[str, Any]) -> Totals:
    """Add a measured prompt to the totals, in place."""
    seconds = row["processing_seconds"]
    totals["count"] += 1
    totals["sum"] += seconds
    totals["errors"] += row["error"]
    bucket = int((math.log(seconds) - _LOG_LOWEST) / _LOG_GROWTH)
    # A string: the keys of a JSON object are.
    name = str(min(max(bucket, 0), _BUCKETS - 1))
    histogram = totals["histogram"]
    histogram[name] = histogram.get(name, 0) + 1
    return totals


def merge(totals: Totals, other: Totals) -> Totals:
    """Add other totals to these, in place."""
    for name in ("count", "sum", "errors"):
        totals[name] += other[name]
    histogram = totals["histogram"]
    for name, rows in other["histogram"].items():
        histogram[name] = histogram.get(name, 0) + rows
    return totals


def result(totals: Totals, start_ms: int, arm: str) -> dict[str, Any]:
    """The metrics of a window."""
    wanted, seen, last = 0.95 * totals["count"], 0, 0
    for bucket in sorted(map(int, totals["histogram"])):
        seen += totals["histogram"][str(bucket)]
        last = bucket
        if seen >= wanted:
            break
    return {
        "start_ms": start_ms,
        "arm": arm,
        "count": totals["count"],
        "mean": totals["sum"] / totals["count"],
        "error_rate": totals["errors"] / totals["count"],
        "p95": math.exp(_LOG_LOWEST + _LOG_GROWTH * (last + 0.5)),
    }


class Progress:
    """Says how many rows were taken, twenty times, on standard output."""

    def __init__(self, rows: int) -> None:
        self._step = max(rows // 20, 1)
        self._taken = 0

    def add(self) -> None:
        """One more."""
        self._taken += 1
        if self._taken % self._step == 0:
            print(json.dumps({"rows": self._taken, "at_ms": time.time() * 1000}), flush=True)
