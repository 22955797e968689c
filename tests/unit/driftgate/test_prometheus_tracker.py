"""What Prometheus sees of a tracker: nothing is left out without a number (M78)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from driftgate.prometheus import TrackerCollector
from schemas.topics import Topic
from streams.tracking.drafts import Kept
from streams.tracking.telemetry import TrackerTelemetry


def test_everything_that_is_counted_is_shown() -> None:
    """Written, left out, attached, refused, unreadable, failed; the lag; and the ratio."""
    seen = TrackerTelemetry(0.02)
    seen.traces.update([Kept.SAMPLED, Kept.FALLBACK, Kept.FALLBACK])
    seen.sampled_out = 98
    seen.feedback.update(["attached", "no_trace"])
    seen.cases.update(["marked"])
    seen.points, seen.events, seen.failures = 40, 3, 7
    seen.undecodable.update([Topic.FEEDBACK])
    seen.refused.update(["trace"])
    seen.available = True
    seen.lag = {Topic.ENRICHED: 5, Topic.CONTROL: 0}
    registry = CollectorRegistry()
    registry.register(TrackerCollector(seen))
    lines = set(generate_latest(registry).decode().splitlines())
    assert lines >= {
        'driftgate_tracker_traces_total{kept="sampled"} 1.0',
        'driftgate_tracker_traces_total{kept="fallback"} 2.0',
        "driftgate_tracker_sampled_out_total 98.0",
        'driftgate_tracker_feedback_total{outcome="no_trace"} 1.0',
        'driftgate_tracker_cases_total{outcome="marked"} 1.0',
        "driftgate_tracker_metric_values_total 40.0",
        "driftgate_tracker_control_events_total 3.0",
        'driftgate_tracker_undecodable_total{topic="prompts.feedback"} 1.0',
        'driftgate_tracker_refused_total{kind="trace"} 1.0',
        "driftgate_tracker_mlflow_failures_total 7.0",
        "driftgate_tracker_mlflow_available 1.0",
        "driftgate_tracker_trace_ratio 0.02",
        'driftgate_consumer_lag_messages{topic="prompts.enriched"} 5.0',
        'driftgate_consumer_lag_messages{topic="driftgate.control"} 0.0',
    }
