"""Records of feedback become columns, or a coded rejection that loses nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from analyzer.feedback import Attributed, FeedbackError, feedback_batches, read_feedback, rejection
from analyzer.served import attribution_of
from schemas.feedback import FeedbackGiven, FeedbackKind, FeedbackRejectionCode
from schemas.feedback_batch import FeedbackFlag
from schemas.prompts import Arm, SourcePosition
from tests.support.curating import enriched

C = FeedbackRejectionCode
VALID: dict[str, Any] = {"event_id": "prompts/0/1", "kind": "user_rating", "value": 0.5}


def encoded(**changes: Any) -> bytes:
    return msgspec.json.encode(VALID | changes)


def test_valid_feedback_is_read() -> None:
    """Unknown fields are ignored, an attribution is optional."""
    assert read_feedback(encoded(mood="fine")) == FeedbackGiven(
        event_id="prompts/0/1", kind=FeedbackKind.USER_RATING, value=0.5
    )
    event = enriched(1, candidate=True)
    copied = {"service": event.service, **msgspec.to_builtins(event.assignment)}
    found = read_feedback(encoded(attribution=copied)).attribution
    assert found == attribution_of(event)
    assert found is not None
    assert found.candidate


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, C.EMPTY),
        (b"", C.EMPTY),
        (b"{", C.NOT_JSON),
        (b"\xff", C.NOT_JSON),
        (encoded()[:-1] + b', "value": Infinity}', C.NOT_JSON),
        (encoded(value="good"), C.WRONG_SHAPE),
        (encoded(kind="shout"), C.WRONG_SHAPE),
        (encoded(event_id=""), C.WRONG_SHAPE),
        (encoded(attribution={}), C.WRONG_SHAPE),
        (b"[]", C.WRONG_SHAPE),
        (b'{"event_id": "x"}', C.WRONG_SHAPE),
        (encoded(value=1.0000001), C.OUT_OF_RANGE),
        (encoded(value=-1), C.OUT_OF_RANGE),
        (encoded(value=1e300), C.OUT_OF_RANGE),
        (encoded(value=0.5, kind="expert_label"), C.OUT_OF_RANGE),
        (b" " * 70_000, C.RECORD_TOO_LARGE),
    ],
)
def test_what_is_no_feedback_has_a_code(value: bytes | None, code: FeedbackRejectionCode) -> None:
    """Each way to be wrong is told apart."""
    with pytest.raises(FeedbackError) as caught:
        read_feedback(value)
    assert caught.value.code is code
    assert str(caught.value)


@generated(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    """Whatever comes is feedback or has a code."""
    with contextlib.suppress(FeedbackError):
        assert 0 <= read_feedback(value).value <= 1


def test_a_dead_letter_keeps_what_came() -> None:
    """The payload is cut at 16 KiB, its full length is said."""
    source = SourcePosition("prompts.feedback", 1, 7)
    letter = rejection(source, b"x" * 20_000, FeedbackError(C.NOT_JSON, "why", "e-1"))
    assert (letter.id, letter.event_id, letter.reason) == ("prompts.feedback/1/7", "e-1", "why")
    assert (len(letter.payload), letter.payload_bytes) == (2**14, 20_000)
    assert letter.payload_truncated
    empty = rejection(source, None, FeedbackError(C.EMPTY, "why"))
    assert (empty.payload, empty.payload_truncated) == (b"", False)


def attributed(offset: int, service: str = "shop", **changes: Any) -> Attributed:
    event = enriched(offset, service=service, **changes)
    given = FeedbackGiven(event_id=event.id, kind=FeedbackKind.USER_RATING, value=0.25)
    return Attributed(SourcePosition("prompts.feedback", 0, offset), given, attribution_of(event))


def test_batches_are_by_service_and_in_order() -> None:
    """One batch a service; arm, segment, revision and value are columns."""
    found = feedback_batches(
        [attributed(1), attributed(2, "blog"), attributed(5, candidate=True), attributed(6)]
    )
    assert [batch.service for batch in found] == ["blog", "shop"]
    rows = found[1].rows()
    assert rows.offset.tolist() == [1, 5, 6]
    assert rows.has(FeedbackFlag.CANDIDATE).tolist() == [False, True, False]
    assert [found[1].segments[n] for n in rows.segment.tolist()] == ["rest", "pro", "rest"]
    assert (rows.revision.tolist(), rows.value.tolist()) == ([2] * 3, [0.25] * 3)
    assert found[1].source_topic == "prompts.feedback"
    assert feedback_batches([]) == []


def test_made_up_segments_fit_the_column() -> None:
    """More names than the column can index count as one of them."""
    one = attributed(0)
    many = [
        one._replace(
            source=one.source.__class__("prompts.feedback", 0, n),
            attribution=msgspec.structs.replace(one.attribution, segment=f"s{n}"),
        )
        for n in range(300)
    ]
    (batch,) = feedback_batches(many)
    assert len(batch.segments) == 255
    assert len(batch.rows()) == 300


def test_in_shadow_feedback_is_about_blue() -> None:
    """People saw what blue made of the prompt, whatever arm was computed beside it."""
    event = enriched(1, candidate=True)
    shadow = msgspec.structs.replace(
        event,
        assignment=msgspec.structs.replace(event.assignment, shadow_deployment="semantic"),
    )
    assert shadow.assignment.arm is Arm.CANDIDATE
    assert not attribution_of(shadow).candidate
