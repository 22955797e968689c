"""Files as prompts; what is published is tested with a broker in tests/integration."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftgate.errors import DriftgateError
from driftgate.producing import BadRow, read_prompts, repeated
from schemas.prompts import PromptSubmitted


def rows(file: Path, content: bytes) -> list[PromptSubmitted | BadRow]:
    file.write_bytes(content)
    return list(read_prompts(file))


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    """Empty lines count, and ids are named after them."""
    found = rows(tmp_path / "a.jsonl", b'\n{"prompt": "one"}\r\n\n{"text": "two"}\n{')
    assert [one.id if isinstance(one, PromptSubmitted) else one.line for one in found] == [
        "a-2",
        "a-4",
        5,
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_kinds_are_known_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    """Case does not matter."""
    [found] = rows(tmp_path / f"a{suffix}", b'{"prompt": "one"}')
    assert isinstance(found, PromptSubmitted)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"7", "not a JSON object"),
        (b'{"prompt": null}', "no text"),
        (b'{"prompt": "a", "x": NaN}', "NaN"),
        (b'{"prompt": "a", "x": -Infinity}', "Infinity"),
        (b'{"prompt": "a", "user_id": ["u"]}', "user_id"),
        (b'{"prompt": "a", "id": ""}', "length >= 1"),
        (b'{"prompt": "a", "submitted_at": "soon"}', "submitted_at"),
        (b'{"prompt": "\\udc00"}', "surrogates"),
        (b'{"prompt": "\xe9"}', "not UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"prompt": "a", "x": ' + b"9" * 400 + b"}", "out of range"),
        (b'{"prompt": "' + b"a" * 4_200_000 + b'"}', "bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_row_is_said_and_passed_over(tmp_path: Path, line: bytes, reason: str) -> None:
    """The rows before and after are prompts all the same."""
    good = b'{"prompt": "good"}'
    before, bad, after = rows(tmp_path / "a.jsonl", b"\n".join([good, line, good]))
    assert isinstance(before, PromptSubmitted)
    assert isinstance(after, PromptSubmitted)
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert reason in bad.reason


def test_time_and_numbers_of_tables_are_understood(tmp_path: Path) -> None:
    """A number is an id, and a time with or without a zone is the event time."""
    found = rows(
        tmp_path / "a.jsonl",
        b'{"prompt": "a", "id": 7, "user_id": 12, "submitted_at": "2026-01-01T00:00:00"}',
    )
    [one] = found
    assert isinstance(one, PromptSubmitted)
    assert (one.id, one.user_id) == ("7", "12")
    assert one.submitted_at is not None


def test_missing_file_is_our_error(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(DriftgateError, match=r"none\.jsonl"):
        list(read_prompts(tmp_path / "none.jsonl"))


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_make_rows(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever is in a JSONL file, each row is a prompt that can be sent, or a bad row."""
    file = tmp_path_factory.mktemp("any") / "a.jsonl"
    for row in rows(file, content):
        assert isinstance(row, BadRow) or msgspec.json.encode(row)


def test_repetition_gives_new_ids() -> None:
    """The first round is as it was; later ones are numbered, for as long as asked."""
    two = [PromptSubmitted(prompt="a", id="a"), PromptSubmitted(prompt="b", id="b")]
    assert [one.id for one in repeated(two, 2)] == ["a", "b", "a-1", "b-1"]
    assert [one.id for one in islice(repeated(two, None), 5)] == ["a", "b", "a-1", "b-1", "a-2"]
    assert list(repeated(two, 0)) == []
