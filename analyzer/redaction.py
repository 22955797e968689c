"""Takes out of a text what may name or endanger somebody: e-mail, phone, card and key-like strings.

Best effort, by form alone: names and addresses stay. It errs on the side of taking out a number
too many where it has the form of a card or of a key, and of leaving plain numbers, dates, versions
and identifiers alone. Every pattern is linear: repetitions are possessive and bounded, so that no
text makes it backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Redacted", "redact"]


class Redacted(NamedTuple):
    """A text without what was taken out of it."""

    text: str
    found: tuple[str, ...]
    """What was: `card`, `email`, `key`, `phone`; sorted, each once."""


_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]|-(?!----)){0,20000}+-----END (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    # Without its end, what has the form of a key's lines.
    r"|[A-Za-z0-9+/=\s\\]{0,20000}+)"
)
_ASSIGNED = re.compile(
    r"(?i)\b(password|passwd|pwd|secret|token|api[ _-]?key|access[ _-]?key|client[ _-]?secret)"
    r"(\s{0,3}+[:=]\s{0,3}+[\"']?+)([^\s\"',;<>\[\]]{6,200}+)"
)
"""A word that says what follows; the word stays."""
_KNOWN_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,200}+"
    r"|(?<![A-Za-z0-9])(?:gh[opsur]|glpat|github_pat|hf|npm|pypi)[-_][A-Za-z0-9_-]{16,200}+"
    r"|(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,200}+"
    r"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{30,60}+"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,4000}+\.[A-Za-z0-9_-]{8,4000}+(?:\.[A-Za-z0-9_-]{0,4000}+)?+"
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{20,4000}+")
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}+")
_SEPARATORS = " \u00a0\u2009()./-"
_DIGITS = re.compile(
    rf"(?<![\w.])[+(]{{0,2}}+\d(?:[{_SEPARATORS}]{{0,2}}+\d){{6,60}}+(?!\w)", re.ASCII
)
"""A run of digits with the separators that phone numbers have."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_CARD = re.compile(
    r"(?<![\w.])(?:\d{13,19}|\d{4}([ \u00a0-])\d{4}\1\d{4}\1\d{1,7}"
    r"|\d{4}([ \u00a0-])\d{6}\2\d{4,5})(?!\w)",
    re.ASCII,
)
_NORTH_AMERICAN = re.compile(r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}", re.ASCII)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(?!\d)")
_DECIMAL = re.compile(r"\d+\.\d+")
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|\d{1,4}(?:\.\d{1,4}){2,}")
"""An IP address or a version."""
_CLASS_CHANGES = 0.3
"""Of a random base-62 string every second character is of another kind than the one before it (a
capital, a small letter, a digit); of words every fourth or so."""
_CLASS_CHANGES_OF_WORDS = 0.5
_PASSES = 8


def redact(text: str) -> Redacted:
    """A text with `[card]`, `[email]`, `[key]` and `[phone]` in place of what has their form.

    Doing it again changes nothing.
    """
    found: set[str] = set()
    for _ in range(_PASSES):
        before = text
        text = _once(text, found)
        if text == before:
            break
    return Redacted(text, tuple(sorted(found)))


def _once(text: str, found: set[str]) -> str:
    steps: list[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str | None]]] = [
        ("key", _PRIVATE_KEY, lambda _: "[key]"),
        ("key", _ASSIGNED, _without_value),
        ("key", _KNOWN_KEY, lambda _: "[key]"),
        ("email", _EMAIL, lambda _: "[email]"),
        ("key", _TOKEN, lambda match: "[key]" if _is_key(match[0]) else None),
        ("phone", _DIGITS, lambda match: "[phone]" if _is_phone(match[0]) else None),
    ]
    text = _without_cards(text, found)
    for kind, pattern, judged in steps:

        def replaced(
            match: re.Match[str],
            kind: str = kind,
            judged: Callable[[re.Match[str]], str | None] = judged,
        ) -> str:
            by = judged(match)
            if by is None:
                return match[0]
            found.add(kind)
            return by

        text = pattern.sub(replaced, text)
    return text


def _without_cards(text: str, found: set[str]) -> str:
    at = 0
    while (match := _CARD.search(text, at)) is not None:
        # From the next digit on: a number before a card may seem to be its first group.
        at = match.start() + 1
        if _is_card(match[0]):
            found.add("card")
            text = f"{text[: match.start()]}[card]{text[match.end() :]}"
    return text


def _without_value(match: re.Match[str]) -> str | None:
    # Letters alone are mostly prose: "the token: authentication explained".
    return None if match[3].isalpha() else f"{match[1]}{match[2]}[key]"


def _is_key(token: str) -> bool:
    if _UUID.fullmatch(token):
        return False
    if _HEX.fullmatch(token):
        return any(c.isdigit() for c in token) and any(c.isalpha() for c in token)
    kinds = [_kind(c) for c in token]
    if not {"digit", "lower", "upper"} <= set(kinds):
        return False
    # Changes to and from a separator do not count: a path has many.
    pairs = [pair for pair in pairwise(kinds) if "other" not in pair]
    changes = sum(left != right for left, right in pairs) / len(token)
    # Words in camelCase have many changes too, but digits at one place at most.
    digit_runs = len(re.findall(r"[0-9]+", token))
    return changes >= (_CLASS_CHANGES if digit_runs > 1 else _CLASS_CHANGES_OF_WORDS)


def _kind(character: str) -> str:
    if character.isdigit():
        return "digit"
    if character.isalpha():
        return "upper" if character.isupper() else "lower"
    return "other"


def _is_card(run: str) -> bool:
    digits = [int(c) for c in run if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    # ISO/IEC 7812-1, annex B: each second digit from the right counts double.
    doubled = [2 * d - 9 if d > 4 else 2 * d for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(run: str) -> bool:
    digits = "".join(c for c in run if c.isdigit())
    # E.164: at most 15 digits.
    if not 9 <= len(digits) <= 15:
        return False
    if run.startswith(("+", "(+")) or _NORTH_AMERICAN.fullmatch(run):
        return True
    # Without a country code it is dialled with a trunk prefix; else a number may be anything.
    number = _DECIMAL.fullmatch(run) or _DOTTED.fullmatch(run) or _DATE.search(run)
    return digits.startswith("0") and number is None
