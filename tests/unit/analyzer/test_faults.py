"""Injected faults: read from a file while it runs, real in effect, and absent without a file."""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

import pytest

from analyzer.faults import NO_FAULTS, FaultFile, Faults, InjectedFault, strike, worsened
from schemas.prompts import SemanticScores


class Clock:
    """Seconds that grow when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def write(path: Path, text: str, version: int) -> None:
    """Write a file with a modification time of its own."""
    path.write_text(text)
    os.utime(path, ns=(version * 10**9, version * 10**9))


def test_without_a_file_nothing_is_injected(tmp_path: Path) -> None:
    """Neither when none is configured, nor while it is not there."""
    assert FaultFile(None).current("semantic") is NO_FAULTS
    assert FaultFile(tmp_path / "none.json").current("semantic") is NO_FAULTS


def test_a_change_is_seen_within_the_check_interval(tmp_path: Path) -> None:
    """Not at once, not later, and taken back when the file goes."""
    path, clock = tmp_path / "faults.json", Clock()
    faults = FaultFile(path, clock)
    assert faults.current("semantic") == NO_FAULTS
    write(path, json.dumps({"deployment": "semantic", "error_rate": 0.3}), 1)
    assert faults.current("semantic") == NO_FAULTS
    clock.now_s = 0.25
    assert faults.current("semantic").error_rate == 0.3
    assert faults.current("baseline") == NO_FAULTS
    write(path, json.dumps({"deployment": "baseline", "delay_ms": 5}), 2)
    clock.now_s = 0.5
    assert faults.current("semantic") == NO_FAULTS
    assert faults.current("baseline").delay_ms == 5
    path.unlink()
    clock.now_s = 0.75
    assert faults.current("baseline") == NO_FAULTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"error_rate": 2}',
        '{"delay_ms": -1}',
        '{"unknown": 1}',
        '{"deployment": ""}',
    ],
)
def test_a_broken_file_is_reported_once_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """A rehearsal that cannot be understood must not become an outage."""
    path, clock = tmp_path / "faults.json", Clock()
    faults = FaultFile(path, clock)
    write(path, json.dumps({"error_rate": 1.0}), 1)
    assert faults.current("semantic").error_rate == 1.0
    write(path, text, 2)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now_s += 1.0
            assert faults.current("semantic") == NO_FAULTS
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_errors_come_as_often_as_they_were_asked_for() -> None:
    """None at 0, all at 1, and about a third at 0.3."""
    strike(NO_FAULTS)
    with pytest.raises(InjectedFault, match="injected"):
        strike(Faults(error_rate=1.0))
    chance, failed = random.Random(1), 0
    for _ in range(1_000):
        try:
            strike(Faults(error_rate=0.3), chance)
        except InjectedFault:
            failed += 1
    assert 250 < failed < 350


def test_a_worse_model_gives_lower_scores() -> None:
    """Those that the gates look at."""
    scores = SemanticScores(
        coherence=0.8, relevance=0.6, density=0.5, clarity=0.5, specificity=0.5, actionability=0.5,
        overall=0.7, domain="general", domain_cosine=0.3, centroid_distance=0.5, cache_hit=False,
    )  # fmt: skip
    worse = worsened(scores, Faults(score_factor=0.5))
    assert (worse.coherence, worse.relevance, worse.overall) == (0.4, 0.3, 0.35)
    assert worsened(scores, NO_FAULTS) is scores
