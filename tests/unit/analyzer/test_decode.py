"""Any bytes become a prompt or a rejection with the right code."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.decode import decode_prompt
from analyzer.errors import Rejection
from schemas.prompts import PromptSubmitted, RejectionCode


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, RejectionCode.EMPTY),
        (b"", RejectionCode.EMPTY),
        (b" \n ", RejectionCode.NOT_JSON),
        (b"hello", RejectionCode.NOT_JSON),
        (b"{'prompt': 'a'}", RejectionCode.NOT_JSON),
        (b'{"prompt": "a"} {"prompt": "b"}', RejectionCode.NOT_JSON),
        (b'{"prompt": "a", "other": NaN}', RejectionCode.NOT_JSON),
        (b'{"prompt": "a", "attributes": {"x": NaN}}', RejectionCode.NOT_JSON),
        (b'{"prompt": "\xff"}', RejectionCode.INVALID_UTF8),
        (b'{"prompt": "a", "ignored": "\xff"}', RejectionCode.INVALID_UTF8),
        (b'{"prompt": "\xed\xa0\x80"}', RejectionCode.INVALID_UTF8),
        (b'{"prompt": "\\ud800"}', RejectionCode.INVALID_UTF8),
        (b'{"prompt": "\\ud800 and much more text"}', RejectionCode.INVALID_UTF8),
        (b'{"prompt": "\\udc00x"}', RejectionCode.INVALID_UTF8),
        (b"null", RejectionCode.WRONG_SHAPE),
        (b"[]", RejectionCode.WRONG_SHAPE),
        (b"{}", RejectionCode.WRONG_SHAPE),
        (b'{"prompt": null}', RejectionCode.WRONG_SHAPE),
        (b'{"prompt": "a", "submitted_at": "yesterday"}', RejectionCode.WRONG_SHAPE),
        (b'{"prompt": "a", "attributes": {"x": 1e999}}', RejectionCode.WRONG_SHAPE),
        (b'{"prompt": "a", "attributes": {"x": [1]}}', RejectionCode.WRONG_SHAPE),
        (b'{"prompt": "a", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "wrong_shape"),
        (b'{"prompt": "' + b"a" * 2_000_000 + b'"}', RejectionCode.RECORD_TOO_LARGE),
    ],
)
def test_bad_bytes_are_rejected_with_their_code(value: bytes | None, code: str) -> None:
    """Each kind of bad record has its own code."""
    with pytest.raises(Rejection) as caught:
        decode_prompt(value)
    assert caught.value.code == code
    assert caught.value.reason


def test_unknown_fields_and_a_byte_order_mark_are_ignored() -> None:
    """A producer may send more than we know."""
    value = '\ufeff{"prompt": "Grüße 😀", "huge": 1e999, "deep": [[[{}]]]}'.encode()
    assert decode_prompt(value) == PromptSubmitted(prompt="Grüße 😀")


def test_a_surrogate_pair_is_a_character() -> None:
    """Two escapes that belong together are one character."""
    assert decode_prompt(b'{"prompt": "\\ud83d\\ude00"}').prompt == "😀"


def test_the_limit_counts_bytes_and_includes_itself() -> None:
    """A record of exactly the limit passes."""
    value = b'{"prompt": "hello"}'
    assert decode_prompt(value, max_bytes=len(value)).prompt == "hello"
    with pytest.raises(Rejection, match=r"19 bytes > limit of 18 bytes"):
        decode_prompt(value, max_bytes=len(value) - 1)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_else_than_decode_or_reject(value: bytes) -> None:
    """Nothing but a Rejection ever comes out."""
    with suppress(Rejection):
        assert isinstance(decode_prompt(value), PromptSubmitted)
