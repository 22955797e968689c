"""Which prompts are worth analysing (M13-M15).

The rules are careful: a prompt in any language, a snippet of code and a very short question must
pass. What is caught is what carries nothing to analyse, and text that would only cost time.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from datetime import UTC

import msgspec

from analyzer.errors import Rejection
from schemas.prompts import PromptSubmitted, RejectionCode

__all__ = ["MAX_AHEAD_MS", "MAX_BEHIND_MS", "Limits", "trusted_event_time", "validate"]

MAX_AHEAD_MS = 5 * 60_000
"""An event time further ahead of the broker is a wrong clock; less is ordinary clock skew."""
MAX_BEHIND_MS = 7 * 86_400_000
"""An event time further behind is a replayed archive, whose age says nothing about our lag."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a prompt may be."""

    min_chars: int = 2
    """Characters that can be seen, at least: one is a slip of the finger in most scripts."""
    max_chars: int = 20_000
    """Characters of the prompt, and of its context."""
    max_control_share: float = 0.1
    """Control characters other than tab and line breaks, as a share of all. A pasted terminal log
    with colours has 3 to 6 %, binary data read as text about 12 %."""
    max_repetition_share: float = 0.7
    """Share of one and the same token or line in texts of 8 or more of them."""
    min_gibberish_share: float = 0.6
    """Share of letters in words that no language spells, from which on a text is gibberish."""


# What cannot be seen: white space, format characters (zero-width ones, direction marks), and the
# letters and symbols that Unicode draws as blanks (Hangul fillers, the empty braille pattern).
_BLANK = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]+"
)
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_WORD = re.compile(r"[^\W\d_]+")
_ASCII_WORD = re.compile(r"[a-zA-Z]{5,}")
_CONSONANTS = re.compile(r"[b-df-hj-np-tv-xz]{6,}")
_VOWEL = re.compile(r"[aeiouy]")
_BROKEN = re.compile("[\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")

_WALKS = {
    row[start : start + 5]
    for keys in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for row in (keys, keys[::-1])
    for start in range(len(row) - 4)
}
_SUSPECT = re.compile("[b-df-hj-np-tv-xz]{5}|" + "|".join(sorted(_WALKS)))
"""What every text with mashed words has: a walk, or so many consonants in a row. A word of six
letters or more with fewer than a tenth of vowels has them, and so has one with six in a row. Of a
thousand real prompts one has, and the others cost a search instead of a look at each word."""
_PRODUCT_NAMES = {"qwert", "qwerty", "qwertz"}
"""Walks that are words."""

_MIN_REPEATED_CHARS = 16
"""Shorter repetitions are speech ("ha ha ha", "no no no")."""
_MIN_REPEATED_ITEMS = 8
_MIN_COMPRESSED_CHARS = 1_000
_MAX_COMPRESSION = 0.03
"""zlib leaves 20 to 60 % of prose and code, 5 % of a table of a hundred like rows, and 1 % of a
sentence pasted a hundred times."""


def validate(prompt: PromptSubmitted, limits: Limits) -> None:
    """Let a prompt pass, or say why not.

    Costs about 15 us for a sentence and 2 ms for 20,000 characters.

    Raises:
        Rejection: ``too_long``, ``empty`` (nothing that can be seen), ``too_short``,
            ``control_characters``, ``repetition`` or ``gibberish``.
    """
    text = prompt.prompt
    for name, value in (("prompt", text), ("context", prompt.context or "")):
        if len(value) > limits.max_chars:
            reason = f"{name} of {len(value)} characters > limit of {limits.max_chars}"
            raise Rejection(RejectionCode.TOO_LONG, reason)
    visible = _BLANK.sub("", text)
    if not visible:
        reason = f"{len(text)} characters, none that can be seen"
        raise Rejection(RejectionCode.EMPTY, reason)
    _check_control(text, limits)
    if len(visible) < limits.min_chars:
        reason = f"{len(visible)} characters that can be seen < minimum of {limits.min_chars}"
        raise Rejection(RejectionCode.TOO_SHORT, reason)
    _check_repetition(text, visible, limits)
    _check_gibberish(visible, text, limits)


def trusted_event_time(prompt: PromptSubmitted, broker_ms: int) -> int | None:
    """The producer's event time, when it can be believed.

    Args:
        prompt: its ``submitted_at`` counts as UTC where it names no zone.
        broker_ms: the record's time stamp, ms since the epoch.

    Returns:
        ms since the epoch; None when there is none, or it lies more than 5 minutes ahead of the
        broker or 7 days behind.
    """
    submitted = prompt.submitted_at
    if submitted is None:
        return None
    if submitted.tzinfo is None:
        submitted = submitted.replace(tzinfo=UTC)
    event_ms = round(submitted.timestamp() * 1000)
    trusted = broker_ms - MAX_BEHIND_MS <= event_ms <= broker_ms + MAX_AHEAD_MS
    return event_ms if trusted else None


def _check_control(text: str, limits: Limits) -> None:
    found = _FORBIDDEN.search(text)
    if found is not None:
        reason = f"U+{ord(found.group()):04X} at character {found.start()}, which text cannot hold"
        raise Rejection(RejectionCode.CONTROL_CHARACTERS, reason)
    count = len(_CONTROL.findall(text))
    if count > limits.max_control_share * len(text):
        reason = f"{count} control characters of {len(text)} > {limits.max_control_share:.0%}"
        raise Rejection(RejectionCode.CONTROL_CHARACTERS, reason)


def _check_repetition(text: str, visible: str, limits: Limits) -> None:
    period = _period(visible.casefold())
    if period:
        times = len(visible) // period
        reason = f"the same {period} characters {times} times over"
        raise Rejection(RejectionCode.REPETITION, reason)
    for name, items in (("token", text.split()), ("line", text.splitlines())):
        if len(items) < _MIN_REPEATED_ITEMS:
            continue
        words = [item for item in items if any(map(str.isalpha, item))]
        if len(words) < _MIN_REPEATED_ITEMS:
            continue
        ((_, count),) = Counter(words).most_common(1)
        if count > limits.max_repetition_share * len(words):
            reason = f"one {name} makes up {count} of {len(words)}"
            raise Rejection(RejectionCode.REPETITION, reason)
    if len(text) >= _MIN_COMPRESSED_CHARS:
        data = text.encode()
        share = len(zlib.compress(data, 1)) / len(data)
        if share < _MAX_COMPRESSION:
            reason = f"{len(text)} characters compress to {share:.1%}: one passage over and over"
            raise Rejection(RejectionCode.REPETITION, reason)


def _period(text: str) -> int:
    """The length of what the whole text repeats four times or more; 0 when there is none.

    A period of at most a quarter shows where the first half comes again.
    """
    if len(text) < _MIN_REPEATED_CHARS:
        return 0
    period = text.find(text[: len(text) // 2], 1)
    if 0 < period <= len(text) // 4 and text[period:] == text[:-period]:
        return period
    return 0


def _check_gibberish(visible: str, text: str, limits: Limits) -> None:
    broken = len(_BROKEN.findall(visible))
    if broken > 0.3 * len(visible):
        reason = f"{broken} of {len(visible)} characters are replacements or private"
        raise Rejection(RejectionCode.GIBBERISH, reason)
    if _WORD.search(text) is None:
        # Numbers and pictographs say something; punctuation alone does not.
        if not any(unicodedata.category(char)[0] in "NM" or char > "\u2100" for char in visible):
            reason = f"{len(visible)} characters without a letter, a number or a symbol"
            raise Rejection(RejectionCode.GIBBERISH, reason)
        return
    if _SUSPECT.search(text.lower()) is None:
        return
    mashed = [word for word in _ASCII_WORD.findall(text) if _is_mash(word)]
    if len(mashed) < 2 and not any(len(word) >= 12 or _walks(word.lower()) for word in mashed):
        return  # one word may be a name, or Borschtsch
    letters = sum(map(len, _WORD.findall(text)))
    share = sum(map(len, mashed)) / letters
    if share >= limits.min_gibberish_share:
        reason = f"{share:.0%} of {letters} letters are in words like {mashed[0][:20]!r}"
        raise Rejection(RejectionCode.GIBBERISH, reason)


def _is_mash(word: str) -> bool:
    """Whether keys were pressed at random: no vowels to speak of, or a walk along the keyboard."""
    if len(word) <= 8 and word.isupper():
        return False  # an acronym
    lower = word.lower()
    if lower in _PRODUCT_NAMES:
        return False
    if _walks(lower):
        return True
    vowels = len(_VOWEL.findall(lower)) / len(lower)
    return len(lower) >= 6 and (
        vowels < 0.1 or (vowels < 0.25 and _CONSONANTS.search(lower) is not None)
    )


def _walks(lower: str) -> bool:
    return any(lower[start : start + 5] in _WALKS for start in range(len(lower) - 4))
