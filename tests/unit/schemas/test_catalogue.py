"""Finding the events in the tables of the contract."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from schemas import catalogue as module
from schemas.catalogue import catalogue, event_named, events_of, inbound
from schemas.cloudevents import EVENT_TYPES
from schemas.control import ControlEvent
from schemas.errors import SchemaError
from schemas.log import LogRecord
from schemas.prompts import PromptSubmitted
from schemas.topics import Topic, TopicSpec


def test_a_topic_holds_what_its_content_names() -> None:
    """A name, a list of names and a union of types are all resolved."""
    assert [event.type for event in events_of(Topic.PROMPTS)] == [PromptSubmitted]
    assert {event.type for event in events_of(Topic.CONTROL)} == set(get_args(ControlEvent))
    assert {event.type for event in events_of(Topic.LOG)} == set(get_args(LogRecord))
    assert inbound(Topic.PROMPTS)
    assert not inbound(Topic.ENRICHED)


def test_names_follow_from_the_cloudevents_type_or_the_struct() -> None:
    """Where there is a CloudEvents type, the name is the type's; else it is the struct's."""
    rolled_back = event_named("RolloutRolledBack")
    assert rolled_back.ce_type == "driftgate.rollout.rolled_back.v1"
    assert rolled_back.file == "rollout-rolled-back.v1.schema.json"
    assert rolled_back.urn == "urn:driftgate:rollout-rolled-back:v1"
    batch = event_named("measurement.batch.v1")
    assert (batch.ce_type, batch.file) == (None, "measurement-batch.v1.schema.json")


def test_names_and_files_are_unique() -> None:
    """No event hides another."""
    for attribute in ("name", "title", "file", "urn"):
        values = [getattr(event, attribute) for event in catalogue()]
        assert len(set(values)) == len(values), attribute


def test_a_content_that_names_nothing_is_refused() -> None:
    """A misspelt name in the topic table is found, with the topic and the name."""
    spec = TopicSpec(topic=Topic.ALERTS, key="service", content="AlertEvnt", spread="service")
    with pytest.raises(SchemaError, match=r"topic driftgate\.alerts: .* 'AlertEvnt', which is no"):
        module._types_of(spec)


def test_a_struct_added_to_the_types_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that another part adds needs no entry in a second list."""

    class FeedbackSeen(msgspec.Struct):
        rating: int

    monkeypatch.setitem(EVENT_TYPES, FeedbackSeen, "driftgate.feedback.seen.v1")
    event = catalogue.__wrapped__()[-1]
    assert (event.type, event.file) == (FeedbackSeen, "feedback-seen.v1.schema.json")


def test_two_events_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two structs with one CloudEvents type would share a file."""

    class OtherAlert(msgspec.Struct):
        text: str

    monkeypatch.setitem(EVENT_TYPES, OtherAlert, "driftgate.alert.v1")
    with pytest.raises(SchemaError, match=r"two events have the same name: alert\.v1"):
        catalogue.__wrapped__()
