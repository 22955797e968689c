"""CloudEvents headers and JSON values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cloudevents import (
    CONTROL_EVENT,
    EVENT_TYPES,
    attributes,
    decode_json,
    encode_json,
    event_type,
    headers,
)
from schemas.control import AlertEvent, ControlEvent
from schemas.errors import DecodeError
from schemas.log import OperatorCommand
from schemas.prompts import PromptEnriched, PromptSubmitted
from schemas.rollout import RolloutState
from tests.support.samples import sample

CONTROL_EVENTS = get_args(ControlEvent)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    id=texts,
    source=texts,
    subject=texts,
    time_ms=st.integers(0, 253_402_300_799_999),  # to the end of year 9999
    extensions=st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{5,19}", fullmatch=True), texts),
)
def test_attributes_survive_the_way_through_headers(
    id: str,
    source: str,
    subject: str,
    time_ms: int,
    extensions: dict[str, str],
) -> None:
    """Every attribute comes back as it was given, the time to the millisecond."""
    extensions = {f"ext{name}": value for name, value in extensions.items()}
    sent = headers(
        sample(AlertEvent),
        id=id,
        source=source,
        subject=subject,
        time_ms=time_ms,
        extensions=extensions,
    )
    found = attributes(sent)
    time = datetime.fromisoformat(found.pop("time"))
    assert time.tzinfo == UTC
    assert round((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) == time_ms
    assert found == {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "subject": subject,
        "type": "driftgate.alert.v1",
        **extensions,
    }
    assert dict(sent)["content-type"] == b"application/json"


def test_headers_are_those_of_the_kafka_binding() -> None:
    """The exact headers of one event: prefixed names, UTF-8 values, RFC 3339 time in UTC."""
    assert headers(
        sample(RolloutState),
        id="svc/7",
        source="/driftgate/monitor",
        subject="größe",
        time_ms=1_700_000_000_007,
        extensions={"correlationid": "r-1"},
    ) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"svc/7"),
        ("ce_source", b"/driftgate/monitor"),
        ("ce_type", b"driftgate.rollout.state.v1"),
        ("ce_subject", "größe".encode()),
        ("ce_time", b"2023-11-14T22:13:20.007Z"),
        ("content-type", b"application/json"),
        ("ce_correlationid", b"r-1"),
    ]


def test_foreign_headers_are_no_attributes() -> None:
    """Headers without the prefix, and bytes that are no text, do no harm."""
    found = attributes([("traceparent", b"00-1"), ("ce_id", b"\xff1"), ("ce_type", b"t")])
    assert found == {"id": "\ufffd1", "type": "t"}
    assert attributes([("ce_id", None)]) == {}  # type: ignore[list-item]  # a null header value
    assert attributes([]) == {}


@pytest.mark.parametrize("member", CONTROL_EVENTS, ids=lambda member: member.__name__)
def test_a_control_event_comes_back_as_its_own_type(member: Any) -> None:
    """The tag in the value picks the type, and the CloudEvents type holds the tag."""
    event = sample(member)
    value = encode_json(event)
    tag = msgspec.json.decode(value)["type"]
    decoded = decode_json(value, CONTROL_EVENT)
    assert type(decoded) is member
    assert decoded == event
    assert event_type(event) == f"driftgate.{tag}.v1"


@pytest.mark.parametrize("member", EVENT_TYPES, ids=lambda member: member.__name__)
def test_an_event_comes_back_from_json(member: Any) -> None:
    """Every event with a CloudEvents type survives the way through its JSON value."""
    event = sample(member)
    assert decode_json(encode_json(event), member) == event
    assert event_type(event) == EVENT_TYPES[member]


def test_cloudevents_types_are_unique() -> None:
    """No two events share a CloudEvents type."""
    types = [*EVENT_TYPES.values(), *(event_type(sample(member)) for member in CONTROL_EVENTS)]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "a record without a value"),
        (b"", "Input data was truncated"),
        (b"not json", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"id": "1", "service": "s", "command": "abort"}', "missing required field `actor`"),
        (
            b'{"id": "1", "service": "s", "command": "explode", "actor": "a"}',
            r"Invalid enum value 'explode' - at `\$.command`",
        ),
        (b'{"id": "", "service": "s", "command": "abort", "actor": "a"}', r"at `\$.id`"),
        (b'{"id": "\xff", "service": "s"}', "'utf-8' codec can't decode"),
        (b'{"other": ' + b"[" * 100_000, "nested too deeply"),
    ],
    ids=range(9),
)
def test_what_cannot_be_decoded_says_why(value: bytes | None, reason: str) -> None:
    """No value, no JSON, JSON of the wrong shape, no text, endless nesting: one error, a reason."""
    with pytest.raises(DecodeError, match=reason):
        decode_json(value, OperatorCommand)


def test_an_unknown_control_event_is_refused() -> None:
    """A tag of a later version is an error with the tag in it, not another event."""
    with pytest.raises(DecodeError, match=r"'gate\.exploded'"):
        decode_json(b'{"type": "gate.exploded"}', CONTROL_EVENT)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_raise_anything_but_a_decode_error(value: bytes) -> None:
    """Whatever a record holds, decoding it ends in the one error that readers handle."""
    with pytest.raises(DecodeError):
        decode_json(value, PromptEnriched)


def test_unknown_fields_are_ignored() -> None:
    """A newer sender may add fields."""
    prompt = decode_json(b'{"prompt": "x", "colour": "red"}', PromptSubmitted)
    assert prompt == PromptSubmitted(prompt="x")
