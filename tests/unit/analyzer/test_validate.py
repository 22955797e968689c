"""Careful validation: what carries nothing is caught, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import Rejection
from analyzer.validate import (
    MAX_AHEAD_MS,
    MAX_BEHIND_MS,
    Limits,
    trusted_event_time,
    validate,
)
from schemas.prompts import PromptSubmitted, RejectionCode

LIMITS = Limits()


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "no",
        "42",
        "你好",
        "水を",
        "👍👍",
        "∑∫√",
        "Привет, как дела?",
        "مرحبا بالعالم",
        "ภาษาไทยไม่มีช่องว่าง",
        "strč prst skrz krk",
        "Angstschweiß",
        "Borschtsch",
        "ha ha ha ha ha",
        "SELECT * FROM t;",
        "def f(x):\n    return x ** 2",
        "kubectl rsync grpc tcpdump strncpy",
        "what is d41d8cd98f00b204e9800998ecf8427e",
        "explain the qwerty layout",
        "\x1b[31merror\x1b[0m in line three of the file",
        "0 1 1 0 1 0 0 1 0 0 1 1\n" * 3 + "What comes next?",
        "| a | b |\n|---|---|\n" + "".join(f"| {n} | {n * n} |\n" for n in range(50)),
    ],
)
def test_real_prompts_pass(text: str) -> None:
    """Any language, code, and very short prompts are accepted."""
    validate(PromptSubmitted(prompt=text), LIMITS)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", RejectionCode.EMPTY),
        (" \t\r\n\u3000", RejectionCode.EMPTY),
        ("\u200b\u200d\ufeff", RejectionCode.EMPTY),
        ("\u2800\u3164", RejectionCode.EMPTY),
        ("a", RejectionCode.TOO_SHORT),
        ("\u200ba\u200b", RejectionCode.TOO_SHORT),
        ("x" * 20_001, RejectionCode.TOO_LONG),
        ("hello\0world", RejectionCode.CONTROL_CHARACTERS),
        ("half of a pair \ud800", RejectionCode.CONTROL_CHARACTERS),
        ("\x01\x02\x03\x04abc", RejectionCode.CONTROL_CHARACTERS),
        ("a" * 40, RejectionCode.REPETITION),
        ("asdf " * 6, RejectionCode.REPETITION),
        ("HaHahAhA" * 4, RejectionCode.REPETITION),
        ("buy " * 9 + "now", RejectionCode.REPETITION),
        ("please help me\n" * 12 + "thanks", RejectionCode.REPETITION),
        ("First. " + "The same long sentence, again and again. " * 100, RejectionCode.REPETITION),
        ("!!!@@@###", RejectionCode.GIBBERISH),
        ("asdfghjkl", RejectionCode.GIBBERISH),
        ("sdkfjhskdjfh wekjrhwkjehr sdfkjhsdkfjh", RejectionCode.GIBBERISH),
        ("\ufffd" * 20 + "abc", RejectionCode.GIBBERISH),
    ],
)
def test_what_carries_nothing_is_rejected(text: str, code: RejectionCode) -> None:
    """Each kind of empty talk has its own code, and a reason with numbers."""
    with pytest.raises(Rejection) as caught:
        validate(PromptSubmitted(prompt=text), LIMITS)
    assert caught.value.code is code
    assert any(char.isdigit() for char in caught.value.reason)


def test_the_longest_prompt_passes_and_one_more_does_not() -> None:
    """The limit includes itself, and holds for the context, too."""
    text = " ".join(f"word{n}" for n in range(3_000))[:20_000]
    validate(PromptSubmitted(prompt=text, context=text), LIMITS)
    with pytest.raises(Rejection, match="context of 20001 characters"):
        validate(PromptSubmitted(prompt="hello", context=text + "x"), LIMITS)


@given(st.text(max_size=300))
def test_any_text_passes_or_is_rejected(text: str) -> None:
    """Nothing but a Rejection ever comes out, and nothing blank passes."""
    with suppress(Rejection):
        validate(PromptSubmitted(prompt=text), LIMITS)
        assert text.strip()


def _at(moment: datetime) -> PromptSubmitted:
    return PromptSubmitted(prompt="hello", submitted_at=moment)


def test_an_event_time_is_trusted_within_its_bounds() -> None:
    """5 minutes ahead and 7 days behind are trusted, a millisecond more is not."""
    broker = datetime(2026, 3, 1, 12, tzinfo=UTC)
    broker_ms = round(broker.timestamp() * 1000)
    step = timedelta(milliseconds=1)
    ahead, behind = timedelta(milliseconds=MAX_AHEAD_MS), timedelta(milliseconds=MAX_BEHIND_MS)
    assert trusted_event_time(_at(broker), broker_ms) == broker_ms
    assert trusted_event_time(_at(broker + ahead), broker_ms) == broker_ms + MAX_AHEAD_MS
    assert trusted_event_time(_at(broker + ahead + step), broker_ms) is None
    assert trusted_event_time(_at(broker - behind), broker_ms) == broker_ms - MAX_BEHIND_MS
    assert trusted_event_time(_at(broker - behind - step), broker_ms) is None
    assert trusted_event_time(PromptSubmitted(prompt="hello"), broker_ms) is None


def test_an_event_time_without_a_zone_is_utc() -> None:
    """A zone is honoured where there is one, and UTC taken where there is none."""
    broker_ms = round(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
    naive = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - that is what is tested
    assert trusted_event_time(_at(naive), broker_ms) == broker_ms
    east = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert trusted_event_time(_at(east), broker_ms) == broker_ms
    first_year = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23)))
    assert trusted_event_time(_at(first_year), broker_ms) is None
