from __future__ import annotations

import numpy as np
import pytest

from benchmarks.monitor_results import (
    Mark,
    Rows,
    WindowResult,
    differences,
    ratios,
    reference,
    timed,
)


def rows(*taken: tuple[int, int, float, bool]) -> Rows:
    at_ms, arm, seconds, error = zip(*taken, strict=True)
    return Rows(np.array(at_ms), np.array(arm), np.array(seconds), np.array(error))


def test_reference_counts_a_row_in_every_window_that_holds_it() -> None:
    """A window holds what is from its start to before its end, and one starts each second."""
    found = reference(
        rows((20_000, 0, 0.1, False), (29_999, 1, 0.3, True), (30_000, 1, 0.5, False))
    )
    control = [each.start_ms for each in found if each.arm == "control"]
    assert control == list(range(11_000, 20_001, 1000))
    candidate = {each.start_ms: each for each in found if each.arm == "candidate"}
    assert sorted(candidate) == list(range(20_000, 30_001, 1000))
    assert candidate[20_000] == WindowResult(20_000, "candidate", 1, 0.3, 1.0, 0.3)
    assert candidate[21_000] == WindowResult(21_000, "candidate", 2, 0.4, 0.5, 0.5)
    assert candidate[30_000] == WindowResult(30_000, "candidate", 1, 0.5, 0.0, 0.5)


def test_reference_p95_is_the_smallest_value_that_95_percent_do_not_exceed() -> None:
    """Of 20 values it is the 19th."""
    found = reference(rows(*((20_000, 0, n / 10, False) for n in range(20, 0, -1))))
    assert {each.p95 for each in found} == {1.9}


EXACT = WindowResult(0, "control", 3, 0.2, 0.0, 0.4)


@pytest.mark.parametrize(
    "near",
    [
        EXACT,
        WindowResult(0, "control", 3, 0.2 * (1 + 1e-12), 0.0, 0.4),
        WindowResult(0, "control", 3, 0.2, 0.0, 0.4 * 1.02),
        WindowResult(0, "control", 3, 0.2, 0.0, 0.4 * 0.98),
    ],
)
def test_results_within_what_a_sketch_promises_are_right(near: WindowResult) -> None:
    """A mean may be summed in another order, and p95 be off by the sketch's error."""
    assert differences([EXACT], [near], p95_error=0.02) == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([], "is missing"),
        ([EXACT, EXACT], "final twice"),
        ([EXACT, WindowResult(1000, "control", 3, 0.2, 0.0, 0.4)], "there is no such window"),
        ([EXACT, WindowResult(0, "candidate", 3, 0.2, 0.0, 0.4)], "there is no such window"),
        ([WindowResult(0, "control", 4, 0.2, 0.0, 0.4)], "count is 4, must be 3"),
        ([WindowResult(0, "control", 3, 0.2 * (1 + 1e-8), 0.0, 0.4)], "mean is"),
        ([WindowResult(0, "control", 3, 0.2, 0.1, 0.4)], "error_rate is 0.1, must be 0.0"),
        ([WindowResult(0, "control", 3, 0.2, 0.0, 0.4 * 1.03)], "p95 is"),
        ([WindowResult(0, "control", 3, float("nan"), 0.0, 0.4)], "mean is nan"),
    ],
)
def test_each_kind_of_difference_is_found(found: list[WindowResult], wrong: str) -> None:
    """Whatever is not as it must be is said, and nothing else."""
    said = differences([EXACT], found, p95_error=0.02)
    assert len(said) == 1
    assert wrong in said[0]


def test_the_first_quarter_is_not_timed() -> None:
    """Time runs from the first mark at a quarter of the rows to the first that has all."""
    marks = [Mark(20, 0.0), Mark(30, 5.0), Mark(60, 7.0), Mark(100, 9.0), Mark(100, 50.0)]
    assert timed(marks, 100) == (Mark(30, 5.0), Mark(100, 9.0))


@pytest.mark.parametrize(
    "marks", [[], [Mark(100, 1.0)], [Mark(30, 1.0), Mark(90, 2.0)], [Mark(10, 1.0), Mark(20, 2.0)]]
)
def test_without_the_end_there_is_no_time(marks: list[Mark]) -> None:
    """A system that did not take all rows was not measured."""
    with pytest.raises(ValueError, match="marks"):
        timed(marks, 100)


def test_ratios_are_of_medians() -> None:
    """The best Python peer counts, and a single fast repeat does not."""
    rates = {
        "driftgate": [100.0, 900.0, 200.0],
        "driftgate_windows": [300.0],
        "faust": [1.0, 1.0, 1.0],
        "bytewax": [10.0, 500.0, 5.0],
        "kafka_streams": [50.0],
        "kafka_streams_batched": [400.0],
    }
    assert ratios(rates, python_peers=("faust", "quix_streams", "bytewax")) == {
        "ratio_vs_best_python_peer": 20.0,
        "ratio_vs_kafka_streams": 4.0,
        "ratio_vs_kafka_streams_batched": 0.5,
        "windows_ratio_vs_kafka_streams_batched": 0.75,
    }


def test_there_are_no_ratios_without_our_own_system() -> None:
    """Peers alone have nothing to be compared with."""
    assert ratios({"faust": [1.0]}, python_peers=("faust",)) == {}
