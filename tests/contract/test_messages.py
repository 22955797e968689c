"""Real messages, as our encoders and clients of all kinds write them, against the contract."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.catalogue import Event, event_named, events_of
from schemas.cloudevents import encode_json, headers
from schemas.control import AlertEvent, GateBreached
from schemas.errors import SchemaError
from schemas.log import Heartbeat, MeasurementBatch, OperatorCommand, encode_log_record
from schemas.prompts import PromptEnriched, PromptSubmitted
from schemas.topics import TOPICS, Topic
from tests.support.contract import assert_valid
from tests.support.samples import sample

on_a_topic = pytest.mark.parametrize(
    ("topic", "event"),
    [(spec.topic, event) for spec in TOPICS for event in events_of(spec.topic)],
    ids=lambda value: value.name if isinstance(value, Event) else value.value,
)


def ce_headers(event: Any) -> list[tuple[str, bytes]]:
    return headers(
        event, id="1", source="/driftgate/test", subject="svc", time_ms=1_700_000_000_123
    )


@on_a_topic
def test_what_our_encoders_write_is_valid(topic: Topic, event: Event) -> None:
    """Headers and value, as our own code encodes them, are found and taken, prefix or not."""
    instance: Any = sample(event.type)
    if topic is Topic.LOG:
        record: tuple[Any, bytes] = ([], encode_log_record(instance))
    else:
        record = (ce_headers(instance) if event.ce_type else [], encode_json(instance))
    assert assert_valid(topic, *record) == event
    assert assert_valid(f"team-a.{topic.value}", *record) == event


def test_a_client_may_send_plain_json() -> None:
    """Prompts and commands need no CloudEvents headers."""
    assert assert_valid("prompts", None, b'{"prompt": "x"}').type is PromptSubmitted
    command = b'{"id": "1", "service": "s", "command": "abort", "actor": "me"}'
    assert assert_valid(Topic.COMMANDS, [], command).type is OperatorCommand


def without(name: str, original: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [header for header in original if header[0] != name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: without("ce_id", h), "'ce_id' is a required property"),
        (lambda h: without("content-type", h), "'content-type' is a required property"),
        (lambda h: without("ce_type", h), "ce_type None is none of"),
        (lambda h: [*without("ce_time", h), ("ce_time", b"yesterday")], "is not a 'date-time'"),
        (lambda h: [*without("ce_time", h), ("ce_time", b"2026-01-02T03:04")], "'date-time'"),
        (lambda h: [*without("ce_specversion", h), ("ce_specversion", b"0.3")], "'1.0' was expect"),
        (lambda h: [*h, ("ce_type", b"driftgate.prompt.rejected.v1")], "is none of"),
        (lambda _: [], "ce_type None is none of"),
    ],
)
def test_wrong_headers_are_refused(change: Any, message: str) -> None:
    """A missing or wrong CloudEvents attribute of an event of ours breaks the contract."""
    event = sample(PromptEnriched)
    with pytest.raises(AssertionError, match=message):
        assert_valid(Topic.ENRICHED, change(ce_headers(event)), encode_json(event))


def test_wrong_values_are_refused() -> None:
    """A value of another type or shape, or no value, breaks the contract."""
    enriched, breached, alert = sample(PromptEnriched), sample(GateBreached), sample(AlertEvent)
    too_large = encode_json(msgspec.structs.replace(enriched, score=1.5))
    recovered = encode_json(breached).replace(b"gate.breached", b"gate.recovered")
    with pytest.raises(AssertionError, match="a record without a value"):
        assert_valid(Topic.ENRICHED, ce_headers(enriched), None)
    with pytest.raises(AssertionError, match=r"\$\.score: 1\.5 is greater than the maximum of 1"):
        assert_valid(Topic.ENRICHED, ce_headers(enriched), too_large)
    with pytest.raises(AssertionError, match=r"\$\.type: 'gate\.recovered' is not one of"):
        assert_valid(Topic.CONTROL, ce_headers(breached), recovered)
    with pytest.raises(AssertionError, match="is none of"):
        assert_valid(Topic.CONTROL, ce_headers(alert), encode_json(alert))
    with pytest.raises(AssertionError, match="no topic of the contract"):
        assert_valid("elsewhere", [], b"{}")


def test_wrong_log_records_are_refused() -> None:
    """Bytes that are no record, and a batch whose columns contradict each other, are found."""
    with pytest.raises(SchemaError, match="not a record of the log"):
        assert_valid(Topic.LOG, [], b"\xc1")
    batch = msgspec.structs.replace(sample(MeasurementBatch), score=b"1234")
    with pytest.raises(SchemaError, match="unequal length"):
        assert_valid(Topic.LOG, [], encode_log_record(batch))
    assert assert_valid(Topic.LOG, [], encode_log_record(sample(Heartbeat))).title == "Heartbeat"


def test_topics_are_found_in_spite_of_names_that_end_alike() -> None:
    """The longest matching name wins, so that a prefix never turns one topic into another."""
    event = sample(PromptEnriched)
    found = assert_valid("prompts.prompts.enriched", ce_headers(event), encode_json(event))
    assert found == event_named("PromptEnriched")
