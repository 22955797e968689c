"""The names that Prometheus sees of a tracker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.topics import Topic
from streams.tracking.drafts import Kept
from streams.tracking.telemetry import TrackerTelemetry

__all__ = ["TrackerCollector"]


class TrackerCollector(Collector):
    """Of a tracker.

    Args:
        telemetry: what it counts.
    """

    def __init__(self, telemetry: TrackerTelemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        seen = self._telemetry
        yield _counts("traces", "Traces written, by why they were.", "kept", seen.traces)
        yield _count("sampled_out", "Results without a trace, by the ratio.", seen.sampled_out)
        yield _counts("feedback", "Feedback, by what became of it.", "outcome", seen.feedback)
        yield _counts("cases", "Curated cases, by what became of them.", "outcome", seen.cases)
        yield _count("metric_values", "Values written to runs.", seen.points)
        yield _count("control_events", "Decisions taken into runs.", seen.events)
        yield _counts("undecodable", "Records that are not what they should be.", "topic",
                      seen.undecodable)  # fmt: skip
        yield _counts("refused", "What MLflow does not take, passed over.", "kind", seen.refused)
        yield _count("mlflow_failures", "Calls that failed and were made again.", seen.failures)
        yield _gauge("mlflow_available", "1 when the last call succeeded.", seen.available)
        yield _gauge("trace_ratio", "Share of prompts that are sampled.", seen.trace_ratio)
        lag = GaugeMetricFamily(
            "driftgate_consumer_lag_messages", "Records that are not in MLflow.", labels=["topic"]
        )
        for topic, records in sorted(seen.lag.items()):
            lag.add_metric([topic], records)
        yield lag


def _count(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"driftgate_tracker_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"driftgate_tracker_{name}", text, value=value)


def _counts(
    name: str, text: str, label: str, counts: Counter[str] | Counter[Kept] | Counter[Topic]
) -> Metric:
    family = CounterMetricFamily(f"driftgate_tracker_{name}", text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
