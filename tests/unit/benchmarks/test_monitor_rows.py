from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

from benchmarks.fold import SERVICE
from benchmarks.monitor_peers import HISTOGRAM_ERROR
from benchmarks.monitor_results import WINDOW_MS, WindowResult, differences, reference
from benchmarks.monitor_rows import SPAN_MS, begin_ms, json_records, log_records, make_load, rows
from benchmarks.monitor_runs import MONITOR_P95_ERROR, window_result
from benchmarks.peers.totals import add, merge, new, result
from schemas.control import WindowMetrics
from schemas.policy import default_policy
from schemas.rollout import Phase
from streams.fold import LogEntry, step
from streams.state import new_state

BEGIN_MS = begin_ms(1_800_000_000_000)
LOAD = make_load(5_000, 50, BEGIN_MS)


@pytest.mark.parametrize("gates", [True, False])
def test_the_fold_of_the_log_is_right(gates: bool) -> None:
    """Our own windows equal those that are computed from all rows at once, with any gates (M2)."""
    state = new_state(SERVICE)
    found = []
    for offset, message in enumerate(log_records(LOAD, gates=gates)):
        for output in step(state, LogEntry(0, offset, message.at_ms, message.value)):
            event = output.event
            if isinstance(event, WindowMetrics) and event.final and event.prompts:
                found.append(window_result(event))
    assert differences(reference(rows(LOAD)), found, p95_error=MONITOR_P95_ERROR) == []
    assert state.measured == LOAD.rows
    assert len(state.policy.gates) == (len(default_policy().gates) if gates else 1)
    assert (state.rollout.phase, state.rollout.share) == (Phase.PROGRESSING, 0.5)


@pytest.mark.parametrize("in_panes", [False, True])
def test_json_records_say_the_same(in_panes: bool) -> None:
    """The totals of the Python peers, over one JSON record a prompt, give the same windows."""
    panes: dict[tuple[int, str], dict[str, object]] = defaultdict(new)
    windows: dict[tuple[int, str], dict[str, object]] = defaultdict(new)
    for message in json_records(LOAD):
        row = json.loads(message.value)
        assert message.key.decode() == row["arm"]
        last = message.at_ms // 1000 * 1000
        add(panes[last, row["arm"]], row)
        for start in range(last - WINDOW_MS + 1000, last + 1, 1000):
            add(windows[start, row["arm"]], row)
    if in_panes:
        windows = defaultdict(new)
        for (last, arm), totals in panes.items():
            for start in range(last - WINDOW_MS + 1000, last + 1, 1000):
                merge(windows[start, arm], totals)
    found = [
        WindowResult(**result(totals, start, arm))
        for (start, arm), totals in windows.items()
        if start < BEGIN_MS + SPAN_MS
    ]
    assert differences(reference(rows(LOAD)), found, p95_error=HISTOGRAM_ERROR) == []


@pytest.mark.parametrize(("wanted", "count"), [(0, 20), (1_999, 20), (100_000, 1_000)])
def test_every_load_fills_all_windows(wanted: int, count: int) -> None:
    """However few rows are asked for, the same windows have some."""
    load = make_load(wanted, 100, BEGIN_MS)
    assert load.count == count
    times = [load.at_ms(number) for number in range(load.count)]
    assert np.unique(np.array(times) // 1000).tolist() == list(
        range(BEGIN_MS // 1000, (BEGIN_MS + SPAN_MS) // 1000)
    )
    assert all(message.at_ms <= 1_800_000_000_000 for message in log_records(load))
