"""What `benchmarks.monitor` compares: the right results, what differs from them, and the ratios.

Nothing in here knows of Kafka or of a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = [
    "ARMS",
    "HOP_MS",
    "WINDOW_MS",
    "Mark",
    "Rows",
    "WindowResult",
    "differences",
    "ratios",
    "reference",
    "timed",
]

WINDOW_MS = 10_000
HOP_MS = 1_000
ARMS = ("control", "candidate")

_WARM = 0.25
"""The first quarter of the rows is not timed: connecting, compiling, filling the first window."""
_SUM_ERROR = 1e-9
"""Means may differ by so much, relatively: floats are added up in another order."""
_EDGE = 1e-6
"""A value on the edge of a bucket may be rounded to either side."""


class Rows(NamedTuple):
    """Measured prompts in the order of their time; each of shape (rows,)."""

    at_ms: npt.NDArray[np.int64]
    arm: npt.NDArray[np.intp]
    """Indices of `ARMS`."""
    seconds: npt.NDArray[np.float64]
    error: npt.NDArray[np.bool_]


class WindowResult(msgspec.Struct, frozen=True):
    """The metrics of one arm in one window, from `start_ms` to before `start_ms + WINDOW_MS`."""

    start_ms: int
    arm: str
    count: int
    mean: float
    """Of the processing seconds."""
    error_rate: float
    p95: float
    """The smallest of the processing seconds that 95 % of them do not exceed, or near it."""


class Mark(NamedTuple):
    """So many rows had been taken at that time."""

    rows: int
    at_ms: float


def reference(rows: Rows) -> list[WindowResult]:
    """The exact results of each window that has rows, computed from all rows at once."""
    first = int(rows.at_ms[0]) // HOP_MS * HOP_MS - WINDOW_MS + HOP_MS
    found = []
    for start in range(first, int(rows.at_ms[-1]) + 1, HOP_MS):
        low, high = np.searchsorted(rows.at_ms, [start, start + WINDOW_MS])
        for number, arm in enumerate(ARMS):
            here = rows.arm[low:high] == number
            seconds = rows.seconds[low:high][here]
            if not len(seconds):
                continue
            rank = math.ceil(0.95 * len(seconds)) - 1
            found.append(
                WindowResult(
                    start_ms=start,
                    arm=arm,
                    count=len(seconds),
                    mean=float(seconds.mean()),
                    error_rate=float(rows.error[low:high][here].mean()),
                    p95=float(np.partition(seconds, rank)[rank]),
                )
            )
    return found


def differences(
    expected: Iterable[WindowResult], found: Iterable[WindowResult], *, p95_error: float
) -> list[str]:
    """What is wrong with a system's final results; nothing when they are right.

    Args:
        expected: the exact results.
        found: those of the system, one a window and arm.
        p95_error: how far its p95 may be off, relatively: what its sketch promises.
    """
    wanted = {(each.start_ms, each.arm): each for each in expected}
    wrong = []
    seen = set()
    for each in found:
        key = (each.start_ms, each.arm)
        exact = wanted.get(key)
        if exact is None:
            wrong.append(f"{key}: there is no such window")
            continue
        if key in seen:
            wrong.append(f"{key}: final twice")
        seen.add(key)
        for name, error in (
            ("count", 0.0),
            ("mean", _SUM_ERROR),
            ("error_rate", _SUM_ERROR),
            ("p95", p95_error + _EDGE),
        ):
            value, right = getattr(each, name), getattr(exact, name)
            if not abs(value - right) <= error * abs(right):
                wrong.append(f"{key}: {name} is {value}, must be {right}")
    return wrong + [f"{key}: is missing" for key in wanted if key not in seen]


def timed(marks: Sequence[Mark], rows: int) -> tuple[Mark, Mark]:
    """Between which marks rows are counted and timed: from a quarter of the rows to all.

    Args:
        marks: with rising rows.
        rows: of the load.

    Raises:
        ValueError: no mark is at the quarter, or none at the end.
    """
    after = [mark for mark in marks if mark.rows >= _WARM * rows]
    if len(after) < 2 or after[-1].rows < rows:
        raise ValueError(f"{len(marks)} marks, up to {marks[-1].rows if marks else 0} of {rows}")
    # Several may say all rows: what comes after the first of them is no work on rows.
    last = next(mark for mark in after if mark.rows >= rows)
    return after[0], last


def ratios(
    rates: Mapping[str, Sequence[float]], *, python_peers: Sequence[str]
) -> dict[str, float]:
    """How many times faster than its peers `driftgate` is, by the medians.

    And its windows alone than those on the same records, as far as both were measured.

    Args:
        rates: rows a second of each repeat, by system; those that were left out are not there.
        python_peers: the systems of which the fastest counts.
    """
    medians = {name: median(several) for name, several in rates.items()}
    found: dict[str, float] = {}
    if "driftgate" not in medians:
        return found
    python = [medians[name] for name in python_peers if name in medians]
    if python:
        found["ratio_vs_best_python_peer"] = medians["driftgate"] / max(python)
    for name in ("kafka_streams", "kafka_streams_panes", "kafka_streams_batched"):
        if name in medians:
            found[f"ratio_vs_{name}"] = medians["driftgate"] / medians[name]
    windows, batched = medians.get("driftgate_windows"), medians.get("kafka_streams_batched")
    if windows and batched:
        found["windows_ratio_vs_kafka_streams_batched"] = windows / batched
    return found
