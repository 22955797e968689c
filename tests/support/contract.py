"""Holds real messages against the generated contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, FormatChecker

from schemas.asyncapi import asyncapi_document
from schemas.catalogue import Event, events_of, inbound
from schemas.cloudevents import attributes
from schemas.generate import schema_for
from schemas.log import MeasurementBatch, decode_log_record
from schemas.topics import Topic

__all__ = ["assert_valid", "errors_of", "pointed_at", "references"]

_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def assert_valid(
    topic: Topic | str, headers: Sequence[tuple[str, bytes]] | None, value: bytes | None
) -> Event:
    """Check a record, as it was read from a broker, against the contract; say which event it is.

    Args:
        topic: the topic, with or without the prefix of an installation.
        headers: the record's headers.
        value: the record's value.

    Raises:
        AssertionError: it does not keep the contract; the message says where.
    """
    known = _topic(topic)
    if known is Topic.LOG:
        return _assert_valid_log(value)
    found = attributes(headers or ())
    event = _event(known, found.get("type"))
    if found or not inbound(known):
        texts = {name: text.decode() for name, text in headers or ()}
        _raise(f"headers of {event.title} on {topic}", _header_validator(event.title), texts)
    assert value is not None, f"{event.title} on {topic}: a record without a value"
    _raise(f"{event.title} on {topic}", _validator(event.type), msgspec.json.decode(value))
    return event


def errors_of(event_type: type, value: Any) -> list[str]:
    """What is wrong with a decoded JSON value, by the schema of its type."""
    return _errors(_validator(event_type), value)


def references(node: Any) -> list[str]:
    """Every ``$ref`` below a node of a document."""
    if isinstance(node, list):
        return [ref for child in node for ref in references(child)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [ref for child in node.values() for ref in references(child)]


def pointed_at(document: Any, ref: str) -> Any:
    """What a local reference points at; KeyError when nothing."""
    for part in ref.removeprefix("#/").split("/"):
        document = document[part]
    return document


def _topic(name: Topic | str) -> Topic:
    matches = [topic for topic in Topic if name.endswith(topic.value)]
    assert matches, f"{name!r} is no topic of the contract, with or without a prefix"
    return max(matches, key=lambda topic: len(topic.value))


def _event(topic: Topic, ce_type: str | None) -> Event:
    events = events_of(topic)
    if ce_type is None and inbound(topic) and len(events) == 1:
        return events[0]
    names = [event.ce_type for event in events]
    assert ce_type in names, f"{topic}: ce_type {ce_type!r} is none of {names}"
    return events[names.index(ce_type)]


def _assert_valid_log(value: bytes | None) -> Event:
    record = decode_log_record(value)
    if isinstance(record, MeasurementBatch):
        record.rows()
    event = next(e for e in events_of(Topic.LOG) if e.type is type(record))
    assert value is not None
    # As it was sent, not as it was decoded: a decoder leaves out what it does not know.
    sent = msgspec.to_builtins(msgspec.msgpack.decode(value))
    _raise(f"{event.title} on {Topic.LOG}", _validator(event.type), sent)
    return event


@cache
def _validator(event_type: type) -> Draft202012Validator:
    return Draft202012Validator(schema_for(event_type), format_checker=_formats)


@cache
def _header_validator(title: str) -> Draft202012Validator:
    components = asyncapi_document()["components"]
    schema = components["messages"][title].get("headers", True)
    if schema is True:
        return Draft202012Validator(True, format_checker=_formats)
    return Draft202012Validator({**schema, "components": components}, format_checker=_formats)


def _errors(validator: Draft202012Validator, value: Any) -> list[str]:
    return sorted(f"{error.json_path}: {error.message}" for error in validator.iter_errors(value))


def _raise(what: str, validator: Draft202012Validator, value: Any) -> None:
    errors = _errors(validator, value)
    assert not errors, f"{what} does not keep the contract:\n" + "\n".join(errors)
