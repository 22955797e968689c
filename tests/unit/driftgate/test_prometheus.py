"""What Prometheus and a supervisor see of a process (M24, M53-M55, M60)."""

from __future__ import annotations

import urllib.error
import urllib.request

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from analyzer.telemetry import UNITS, Histogram
from analyzer.telemetry import Telemetry as AnalyzerTelemetry
from driftgate.errors import SettingsError
from driftgate.prometheus import (
    AnalyzerCollector,
    MonitorCollector,
    Probes,
    Progress,
    serve,
)
from schemas.log import RowFlag, SharedCache, SharedCacheState
from streams.telemetry import Telemetry as MonitorTelemetry
from tests.support.folding import Story, gate, heartbeat, measurement, policy, rows_of

LOCAL = ("127.0.0.1", 0)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[str, float]:
    """Values by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@given(st.lists(st.floats(0, 1), max_size=50), st.lists(st.floats(0, 1), max_size=50))
def test_a_histogram_counts_as_prometheus_does(first: list[float], second: list[float]) -> None:
    """A bucket holds all that is at most its bound, in whatever batches it came."""
    found = Histogram(UNITS)
    found.add(first)
    found.add(second)
    for bound, count in found.cumulative():
        assert count == sum(x <= float(bound) for x in [*first, *second])
    assert found.sum == pytest.approx(sum(first) + sum(second))


def test_what_is_no_number_spoils_no_histogram() -> None:
    """One NaN must not make the sum of all later ones a NaN."""
    found = Histogram(UNITS)
    found.add([0.5, float("nan"), float("inf")])
    assert found.sum == 0.5
    assert found.cumulative()[-1] == ("+Inf", 1.0)


def test_an_analyzer_shows_what_it_delivered() -> None:
    """Names, labels and numbers are those of the batch."""
    seen = AnalyzerTelemetry()
    looked_up = RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP
    flags = np.array([RowFlag.CANDIDATE | looked_up | RowFlag.CACHE_HIT, looked_up,
                      RowFlag.REJECTED])  # fmt: skip
    columns = rows_of(range(3), flags=flags, relevance=0.85, score=0.7, rules_score=0.5)
    seen.take([], measurement(columns))
    shared = SharedCache(state=SharedCacheState.AWAY, hits=5, misses=6, errors=7)
    beat = msgspec.structs.replace(heartbeat(), cache_evictions=4, shared_cache=shared)
    port = serve("analyzer", LOCAL, Probes(), AnalyzerCollector(seen, lambda: beat))
    status, text = get(port, "/metrics")
    found = samples(text)
    assert status == 200
    assert found["driftgate_events_total{outcome=accepted}"] == 2
    assert found["driftgate_events_total{outcome=rejected}"] == 1
    assert found["driftgate_cache_requests_total{arm=candidate,result=hit}"] == 1
    assert found["driftgate_cache_requests_total{arm=candidate,result=miss}"] == 0
    assert found["driftgate_cache_requests_total{arm=control,result=hit}"] == 0
    assert found["driftgate_cache_requests_total{arm=control,result=miss}"] == 1
    assert found["driftgate_cache_evictions_total{}"] == 4
    assert found["driftgate_shared_cache_requests_total{result=hit}"] == 5
    assert found["driftgate_shared_cache_requests_total{result=miss}"] == 6
    assert found["driftgate_shared_cache_errors_total{}"] == 7
    assert found["driftgate_shared_cache_away{}"] == 1
    assert found["driftgate_relevance_score_bucket{le=0.8}"] == 0
    assert found["driftgate_relevance_score_bucket{le=0.9}"] == 2
    assert found["driftgate_blend_delta_bucket{le=+Inf}"] == 2
    assert found["driftgate_model_available{}"] == 1
    assert any(name.startswith("driftgate_build_info{role=analyzer,version=") for name in found)
    assert "process_resident_memory_bytes{}" in found


def test_a_monitor_shows_gates_rollouts_and_rollbacks() -> None:
    """After a rollback: its count, its gate, the share at 0; gates only while they are judged."""
    seen = MonitorTelemetry()
    story = Story()
    for outputs in (
        story.start(policy(gate("coherence", min_samples=100))),
        story.after(3).measure(0, 200, coherence=0.8),
        story.after(3).measure(0, 10, coherence=0.8),
    ):
        seen.take(outputs)
    port = serve("monitor", LOCAL, Probes(), MonitorCollector(seen))
    found = samples(get(port, "/metrics")[1])
    assert found["driftgate_gate_state{gate=coherence,service=shop}"] == 0
    assert found["driftgate_gate_limit{gate=coherence,service=shop}"] == 0.7
    assert found["driftgate_rollout_phase{phase=progressing,service=shop}"] == 1
    for outputs in (
        story.after(3).measure(0, 400, coherence=0.1),
        story.after(3).measure(0, 1, coherence=0.8),
    ):
        seen.take(outputs)
    found = samples(get(port, "/metrics")[1])
    assert found["driftgate_rollbacks_total{reason=coherence,service=shop}"] == 1
    assert found["driftgate_gate_breaches_total{gate=coherence,service=shop}"] == 1
    assert found["driftgate_rollout_phase{phase=rolled_back,service=shop}"] == 1
    assert found["driftgate_rollout_share{service=shop}"] == 0
    seen.forget(["shop"])
    assert not [name for name in samples(get(port, "/metrics")[1]) if "gate_state{" in name]


def test_life_and_readiness_are_two_questions() -> None:
    """One that is not ready yet is not to be restarted; one that stands still is neither."""
    wrong: dict[str, str | None] = {"alive": None, "ready": "no partitions"}
    port = serve("analyzer", LOCAL, Probes(lambda: wrong["alive"], lambda: wrong["ready"]))
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (503, "no partitions\n")
    wrong["ready"] = None
    assert get(port, "/readyz") == (200, "ok\n")
    wrong["alive"] = "it hangs"
    assert get(port, "/healthz") == (503, "it hangs\n")
    assert get(port, "/readyz") == (503, "it hangs\n")
    assert get(port, "/other")[0] == 404


def test_a_counter_that_stands_still_is_no_life() -> None:
    """It has a while to move; then it is said for how long it has not."""
    count, now = 0, 0.0

    def clock() -> float:
        return now

    progress = Progress(lambda: count, "heartbeat", limit_s=30.0, monotonic=clock)
    now = 30.0
    assert progress() is None
    now = 31.0
    assert progress() == "no heartbeat for 31 s"
    count = 1
    assert progress() is None


def test_a_port_that_is_taken_is_a_setting_to_change() -> None:
    """The message names the variables."""
    taken = serve("analyzer", LOCAL, Probes())
    with pytest.raises(SettingsError, match="DRIFTGATE_HTTP_PORT"):
        serve("monitor", ("127.0.0.1", taken), Probes())
