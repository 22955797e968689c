"""What Prometheus sees of a curator (M59)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from analyzer.curator_telemetry import CuratorTelemetry
from analyzer.feedback import Attributed, FeedbackError, rejection
from analyzer.feedback_queue import Accepted, Rejected
from analyzer.served import attribution_of
from driftgate.prometheus import CuratorCollector
from schemas.feedback import (
    CaseReason,
    CuratedCase,
    FeedbackGiven,
    FeedbackKind,
    FeedbackRejectionCode,
)
from schemas.prompts import SourcePosition
from tests.support.curating import enriched
from tests.support.samples import sample


def test_a_curator_shows_what_it_delivered() -> None:
    """Feedback by kind and rating, refusals by code, cases by reason, what was passed over."""
    seen = CuratorTelemetry()
    source = SourcePosition("prompts.feedback", 0, 0)
    event = enriched(1)

    def accepted(value: float, *, by_table: bool = False) -> Accepted:
        given = FeedbackGiven(event_id=event.id, kind=FeedbackKind.USER_RATING, value=value)
        return Accepted(Attributed(source, given, attribution_of(event)), 0, by_table, None)

    error = FeedbackError(FeedbackRejectionCode.OUT_OF_RANGE, "why")
    case = sample(CuratedCase)
    seen.take(
        [accepted(0.25), accepted(0.5, by_table=True), accepted(0.74), accepted(0.75)],
        [Rejected(rejection(source, b"", error), 0, None)],
        [case, case],
    )
    seen.passed_over["duplicate"] += 3
    seen.lag = {"prompts.feedback": 4, "prompts.enriched": 5}
    seen.waiting, seen.remembered, seen.failures = 6, 7, 8
    registry = CollectorRegistry()
    registry.register(CuratorCollector(seen))
    lines = set(generate_latest(registry).decode().splitlines())
    assert {
        'driftgate_feedback_total{kind="user_rating",rating="negative"} 1.0',
        'driftgate_feedback_total{kind="user_rating",rating="neutral"} 2.0',
        'driftgate_feedback_total{kind="user_rating",rating="positive"} 1.0',
        'driftgate_feedback_joined_total{by="attribution"} 3.0',
        'driftgate_feedback_joined_total{by="table"} 1.0',
        'driftgate_feedback_rejected_total{reason="out_of_range"} 1.0',
        f'driftgate_curated_cases_total{{reason="{next(iter(CaseReason)).value}"}} 2.0',
        'driftgate_curation_passed_over_total{why="duplicate"} 3.0',
        'driftgate_curator_lag_messages{topic="prompts.feedback"} 4.0',
        'driftgate_curator_lag_messages{topic="prompts.enriched"} 5.0',
        "driftgate_feedback_waiting 6.0",
        "driftgate_remembered_events 7.0",
        "driftgate_curator_reconnects_total 8.0",
    } <= lines
