"""E-mail addresses, phone numbers, cards and keys are taken out by their form; the rest stays."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.redaction import redact

FAKE_KEY = "sk" + "-live-" + "9fKq2LmX81pZrT4vBn3C"


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("mail jane.doe+x@mail.example.co.uk!", "mail [email]!", "email"),
        ("<jörg@müller.de>", "<[email]>", "email"),
        ("call +49 (0)170/123 45 67 now", "call [phone] now", "phone"),
        ("call 030 901820-33", "call [phone]", "phone"),
        ("call (212) 555-0123.", "call [phone].", "phone"),
        ("call 1-800-555-0199", "call [phone]", "phone"),
        ("pay 4111 1111 1111 1111 now", "pay [card] now", "card"),
        ("pay 4111-1111-1111-1111", "pay [card]", "card"),
        ("pay 378282246310005", "pay [card]", "card"),
        ("pay 3782 822463 10005", "pay [card]", "card"),
        ("12 4111111111111111", "12 [card]", "card"),
        (f"use {FAKE_KEY}", "use [key]", "key"),
        ("AWS AKIA" + "IOSFODNN7EXAMPLE", "AWS [key]", "key"),
        ("password: hunter2xyz", "password: [key]", "key"),
        ('api_key="abc123def456"', 'api_key="[key]"', "key"),
        ("a ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl b", "a [key] b", "key"),
        ("hash d41d8cd98f00b204e9800998ecf8427e", "hash [key]", "key"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----\nbye",
            "[key]\nbye",
            "key",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIEow\nIBAAK", "[key]", "key"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nDEK-Info: A,1\n\nMII\n-----END EC PRIVATE KEY-----!",
            "[key]!",
            "key",
        ),
    ],
)  # fmt: skip
def test_what_endangers_somebody_is_taken_out(text: str, expected: str, found: str) -> None:
    """Each form is known, and said by its kind."""
    assert redact(text) == (expected, (found,))


@pytest.mark.parametrize(
    "text",
    [
        "the year 2026, 12 of 30 and 3.14159265358979",
        "on 2026-11-28 or 28.11.2026 at 10:30:00",
        "version 10.15.7.2041 on 192.168.100.200",
        "1,234,567.89 EUR and 100 000 000",
        "f0e1d2c3-b4a5-6789-8abc-def012345678",
        "4111 1111 1111 1112 is no card",
        "the token: authentication explained",
        "someVeryLongCamelCaseIdentifierOfJava and /usr/local/share/applications/mimeinfo",
        "price@night and a@b",
        '=IF(A2>90,"A",IF(A2>75,"B",IF(A2>60,"C","D")))',
        "",
        "Grüße aus 東京",
    ],
)
def test_what_endangers_nobody_stays(text: str) -> None:
    """Numbers, dates, versions, identifiers and prose are left alone."""
    assert redact(text) == (text, ())


def test_all_kinds_are_found_together() -> None:
    """Sorted, each once."""
    text = "a@example.org b@example.org 4111111111111111 +4917012345678 secret=abc12345"
    assert redact(text).found == ("card", "email", "key", "phone")


@given(st.text(max_size=300))
def test_doing_it_again_changes_nothing(text: str) -> None:
    """Whatever the text: what is taken out makes nothing new."""
    once = redact(text)
    assert redact(once.text).text == once.text


NAME = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
PROSE = st.text(string.ascii_letters + " ,.!?\n", max_size=60)


@given(NAME, NAME, PROSE, PROSE)
def test_no_address_gets_through(name: str, domain: str, before: str, after: str) -> None:
    """Between any words."""
    found = redact(f"{before} {name}@{domain}.com {after}")
    assert "@" not in found.text
    assert "email" in found.found


@given(st.text(string.digits, min_size=14, max_size=14), st.sampled_from(["", " ", "-"]), PROSE)
def test_no_card_gets_through(digits: str, separator: str, before: str) -> None:
    """Any number of sixteen digits that a card may have, in groups or not."""
    number = f"4{digits}"
    total = sum(int(c) for c in number[-2::-2])
    total += sum(sum(divmod(2 * int(c), 10)) for c in number[-1::-2])
    number += str(-total % 10)
    shown = separator.join(number[n : n + 4] for n in range(0, 16, 4))
    found = redact(f"{before} {shown}")
    assert "card" in found.found
    assert shown not in found.text


@pytest.mark.parametrize(
    "text",
    ["@" * 20_000, "a" * 20_000, "1 " * 10_000, "a.b@" * 5_000, "-" * 20_000, "password=" * 2_000,
     "-----BEGIN PRIVATE KEY-----" * 700, "eyJ" * 6_000, "+1-" * 6_000],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """Patterns do not backtrack: texts made for that end like others, long before the time-out."""
    redact(text)
