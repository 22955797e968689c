"""What Prometheus sees of a curator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from analyzer.curator_telemetry import CuratorTelemetry

__all__ = ["CuratorCollector"]


def _counts(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(dict(counts).items()):
        family.add_metric([value], count)
    return family


class CuratorCollector(Collector):
    """Of a curator.

    Args:
        telemetry: what it counts.
    """

    def __init__(self, telemetry: CuratorTelemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        seen = self._telemetry
        feedback = CounterMetricFamily(
            "driftgate_feedback", "Feedback that was counted.", labels=["kind", "rating"]
        )
        for (kind, rating), count in sorted(dict(seen.feedback).items()):
            feedback.add_metric([kind, rating], count)
        yield feedback
        yield _counts("driftgate_feedback_joined", "By what told whose result it is about.", "by",
                      seen.joined)  # fmt: skip
        yield _counts("driftgate_feedback_rejected", "Feedback that was not counted, by code.",
                      "reason", seen.rejected)  # fmt: skip
        yield _counts("driftgate_curated_cases", "Cases made or extended, by each reason.",
                      "reason", seen.cases)  # fmt: skip
        yield _counts("driftgate_curation_passed_over", "What might have been a case.", "why",
                      seen.passed_over)  # fmt: skip
        yield _counts("driftgate_undecodable_records", "Of our own topics.", "topic",
                      seen.undecodable)  # fmt: skip
        yield CounterMetricFamily(
            "driftgate_curator_reconnects", "Connections given up.", value=seen.failures
        )
        lag = GaugeMetricFamily(
            "driftgate_curator_lag_messages", "Records that wait for it.", labels=["topic"]
        )
        for topic, count in sorted(seen.lag.items()):
            lag.add_metric([topic], count)
        yield lag
        yield GaugeMetricFamily(
            "driftgate_feedback_waiting", "Read, and waiting for its event.", value=seen.waiting
        )
        yield GaugeMetricFamily(
            "driftgate_remembered_events", "To look feedback up by.", value=seen.remembered
        )
