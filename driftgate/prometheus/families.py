"""The names that Prometheus sees: base units, ``_total`` and ``_seconds``, bounded labels.

No user, prompt, rollout or trace is ever a label: their number has no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from analyzer.telemetry import Histogram
from analyzer.telemetry import Telemetry as AnalyzerTelemetry
from schemas.control import Verdict
from schemas.log import Heartbeat, ModelState, SharedCacheState
from schemas.rollout import Phase
from streams.telemetry import Telemetry as MonitorTelemetry

__all__ = ["AnalyzerCollector", "MonitorCollector"]

_VERDICTS = {Verdict.SUCCESSFUL: 0, Verdict.INCONCLUSIVE: 1, Verdict.ERROR: 2, Verdict.FAILED: 3}
"""From best to worst, so that a rule can say ``>= 2``."""


def _counts(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _histogram(name: str, text: str, found: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=found.cumulative(), sum_value=found.sum)


class AnalyzerCollector(Collector):
    """Of an analyzer worker.

    Args:
        telemetry: what it counts.
        heartbeat: how it is now.
    """

    def __init__(self, telemetry: AnalyzerTelemetry, heartbeat: Callable[[], Heartbeat]) -> None:
        self._telemetry = telemetry
        self._heartbeat = heartbeat

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        seen, beat = self._telemetry, self._heartbeat()
        yield _counts("driftgate_events", "Prompts that got their result.", "outcome",
                      seen.outcomes)  # fmt: skip
        yield _counts("driftgate_validation_rejected", "Prompts refused, by code.", "reason",
                      seen.rejected)  # fmt: skip
        yield _counts("driftgate_fallback", "Semantic analyses replaced by rules.", "reason",
                      seen.fallbacks)  # fmt: skip
        yield _counts("driftgate_path", "How results came about.", "path", seen.paths)
        requests = CounterMetricFamily(
            "driftgate_cache_requests", "Look-ups of prompts' vectors.", labels=["arm", "result"]
        )
        for arm, counts in seen.cache.items():
            for result in ("hit", "miss"):
                requests.add_metric([arm, result], counts[result])
        yield requests
        yield CounterMetricFamily(
            "driftgate_cache_evictions", "Vectors given up for room.", value=beat.cache_evictions
        )
        shared = beat.shared_cache
        yield _counts("driftgate_shared_cache_requests", "Texts that Redis was asked for.",
                      "result", {"hit": shared.hits, "miss": shared.misses})  # fmt: skip
        yield CounterMetricFamily(
            "driftgate_shared_cache_errors", "Calls of Redis that failed.", value=shared.errors
        )
        yield _gauge("driftgate_shared_cache_away", "1 when the one configured does not answer.",
                     shared.state is SharedCacheState.AWAY)  # fmt: skip
        yield CounterMetricFamily(
            "driftgate_delivery_failures",
            "Batches that were not delivered, and read again.",
            value=seen.failed_deliveries,
        )
        stages = HistogramMetricFamily(
            "driftgate_stage_duration_seconds",
            "Seconds a prompt, by stage; all: from the poll to the result.",
            labels=["stage"],
        )
        for name, found in seen.stages.items():
            stages.add_metric([name], found.cumulative(), found.sum)
        yield stages
        text = "From the producer's event time to the result."
        yield _histogram("driftgate_end_to_end_seconds", text, seen.end_to_end)
        for name, found in seen.scores.items():
            yield _histogram(f"driftgate_{name}_score", f"{name.capitalize()} of prompts.", found)
        yield _histogram("driftgate_blend_delta", "Served score less the rules score.",
                         seen.blend_delta)  # fmt: skip
        yield _gauge("driftgate_model_available", "1 when the model serves.",
                     beat.model in (ModelState.READY, ModelState.DISABLED))  # fmt: skip
        yield _gauge("driftgate_consumer_lag_messages", "Prompts that wait for this worker.",
                     beat.lag_messages)  # fmt: skip
        yield _gauge("driftgate_cache_entries", "Vectors in the cache.", beat.cache_entries)
        yield _gauge("driftgate_rollout_revision", "Of the state that is obeyed.",
                     beat.applied_revision)  # fmt: skip


class MonitorCollector(Collector):
    """Of a monitor: the services that it owns.

    Args:
        telemetry: what it counts.
    """

    def __init__(self, telemetry: MonitorTelemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        seen = self._telemetry
        yield CounterMetricFamily("driftgate_log_records", "Records folded.", value=seen.records)
        for name, text, label, counts in (
            ("control_events", "Decisions, by type.", "type", seen.events),
            ("gate_breaches", "Breaches that were certified.", "gate", seen.breaches),
            ("rollbacks", "Rollbacks, by the gate that caused them.", "reason", seen.rollbacks),
        ):
            family = CounterMetricFamily(f"driftgate_{name}", text, labels=["service", label])
            for (service, value), count in sorted(counts.items()):
                family.add_metric([service, value], count)
            yield family
        yield from self._gates()
        yield from self._services()
        alerts = GaugeMetricFamily("driftgate_alerts_active", "Open alerts.", labels=["severity"])
        for severity in ("warning", "critical"):
            found = [a for a in list(seen.alerts.values()) if a.severity == severity]
            alerts.add_metric([severity], len(found))
        yield alerts

    def _gates(self) -> Iterator[Metric]:
        labels = ["service", "gate"]
        state = GaugeMetricFamily(
            "driftgate_gate_state", "0 holds, 1 open, 2 cannot be judged, 3 broken.", labels=labels
        )
        value = GaugeMetricFamily("driftgate_gate_value", "What is tested.", labels=labels)
        limit = GaugeMetricFamily("driftgate_gate_limit", "What it is held against.", labels=labels)
        for key, report in sorted(self._telemetry.gates.items()):
            state.add_metric(key, _VERDICTS[report.verdict])
            for family, number in ((value, report.value), (limit, report.limit)):
                if number is not None:
                    family.add_metric(key, number)
        yield from (state, value, limit)

    def _services(self) -> Iterator[Metric]:
        measured = CounterMetricFamily(
            "driftgate_measured_prompts", "Prompts measured.", labels=["service"]
        )
        workers = GaugeMetricFamily(
            "driftgate_live_workers", "Analyzers that beat.", labels=["service"]
        )
        for service, status in sorted(self._telemetry.status.items()):
            measured.add_metric([service], status.measured)
            workers.add_metric([service], len(status.live_workers))
        share = GaugeMetricFamily(
            "driftgate_rollout_share", "Users served by green, 0 to 1.", labels=["service"]
        )
        phase = GaugeMetricFamily(
            "driftgate_rollout_phase", "1 for the present phase.", labels=["service", "phase"]
        )
        for service, rollout in sorted(self._telemetry.rollouts.items()):
            share.add_metric([service], rollout.share)
            for each in Phase:
                phase.add_metric([service, str(each)], rollout.phase is each)
        yield from (measured, workers, share, phase)
