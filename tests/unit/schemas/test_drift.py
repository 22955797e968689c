"""Sums of Fourier features, thresholds and rules, as they stand in records and policies."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from schemas.drift import DriftFeature, DriftRules, FourierSum, ThresholdLine, stacked_sums
from schemas.errors import DecodeError

COUNT = 16
UNIT = math.sqrt(2 / COUNT)
"""The largest that a feature of a row can be."""


def made(*values: float, rows: int = 10) -> FourierSum:
    """A sum whose first features are given, the others 0."""
    numbers = np.zeros(COUNT, "<f4")
    numbers[: len(values)] = values
    return FourierSum(reference="a" * 16, rows=rows, sums=numbers.tobytes())


def test_sums_are_stacked_in_their_order() -> None:
    """A row a batch, a column a feature, with the numbers that were sent."""
    found = stacked_sums([made(1.0, -2.0), made(0.5), made(3.0, 1.0)])
    assert found.shape == (3, COUNT)
    assert found[:, :2].tolist() == [[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]]
    assert not found[:, 2:].any()


def test_as_much_as_can_be_is_taken_and_no_more() -> None:
    """Ten rows that are all alike give ten times the largest feature; rounding is allowed for."""
    for sign in (1.0, -1.0):
        largest = made(sign * 10 * UNIT)
        assert len(stacked_sums([largest])) == 1
        with pytest.raises(DecodeError, match=r"a value beyond 3\.5\d+ for 10 rows"):
            stacked_sums([made(1.0), made(sign * 10 * UNIT * 1.01)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    """One NaN would stay in the monitor's mean for ever."""
    with pytest.raises(DecodeError, match="a value beyond"):
        stacked_sums([made(1.0), made(0.0, value)])


@pytest.mark.parametrize(
    "several",
    [
        [FourierSum(reference="a" * 16, rows=1, sums=b"")],
        [FourierSum(reference="a" * 16, rows=1, sums=b"123456")],
        [made(1.0), FourierSum(reference="a" * 16, rows=1, sums=bytes(4))],
    ],
    ids=["empty", "no whole floats", "of two lengths"],
)
def test_bytes_that_are_no_sums_are_refused(several: list[FourierSum]) -> None:
    """Their lengths are named."""
    with pytest.raises(DecodeError, match="bytes are no float32 numbers, as many in each"):
        stacked_sums(several)


def test_a_threshold_rises_with_the_run_length() -> None:
    """By the slope for each factor e: rarer false alarms cost delay."""
    line = ThresholdLine(intercept=-1.0, slope=2.0)
    assert line.at(1.0) == -1.0
    assert line.at(math.e * 1000) == pytest.approx(line.at(1000) + 2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("average_run_length: 10", "Expected `float` >= 1000.0"),
        ("learn_rows: 10", "Expected `int` >= 200"),
        ("clear_rows: 0", "Expected `int` >= 100"),
        ("features: [mood]", "Invalid enum value 'mood'"),
        ("arm: both", "Invalid enum value 'both'"),
        ("sensitivity: high", "unknown field `sensitivity`"),
    ],
)
def test_rules_that_cannot_be_are_refused(text: str, words: str) -> None:
    """With the key and what it may be."""
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.yaml.decode(text, type=DriftRules)


def test_everything_is_watched_unless_said_otherwise() -> None:
    """Drift is on without a word in the policy."""
    rules = msgspec.yaml.decode("{}", type=DriftRules)
    assert rules.enabled
    assert rules.features == list(DriftFeature)
