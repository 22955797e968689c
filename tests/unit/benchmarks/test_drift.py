"""The benchmark of drift: another topic is found, and what looks at nothing is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.drift import main
from tests.support.references import TEXTS


def test_another_topic_is_found_by_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One short run over rows of one file, chosen by a value; numbers are on the last line (M3)."""
    usual = [f"{text} Part {part}." for text in TEXTS for part in (1, 2)]
    other = [f"Cook {n} potatoes with leek, butter and {n * 7} g of cheese." for n in range(2, 60)]
    rows = [{"text": text, "domain": "usual"} for text in usual]
    rows += [{"text": text, "domain": "other"} for text in other]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    arguments = [f"{path}:domain=usual", f"{path}:domain=other", "--json", "--runs", "1"]
    arguments += ["--events", "3000", "--encoder", "hashing"]
    monkeypatch.setattr("sys.argv", ["benchmarks.drift", *arguments])
    main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["a"]["rows"], found["b"]["rows"]) == (600, 58)
    assert found["ours"]["100_percent"]["detected"] == 1.0
    assert found["ours"]["100_percent"]["median_delay_events"] < 500
    assert found["dummy"]["false_alarms_per_100k"] == 200.0
    assert found["us_per_prompt"] > 0
