"""Texts that are nearly the same are found, others are left alone (Broder 1997)."""

from __future__ import annotations

import numpy as np

from analyzer.near_duplicates import NearDuplicates, _signature

TEXT = (
    "Write a short story about a lighthouse keeper who finds a letter in a bottle and decides to "
    "answer it, although nobody will ever read the answer but the sea and a very old cat"
)


def test_small_changes_are_near() -> None:
    """Case, punctuation and a word of thirty make no other text."""
    near = NearDuplicates()
    assert not near.seen(TEXT)
    assert near.seen(TEXT)
    assert near.seen(TEXT.upper().replace(",", " - "))
    assert near.seen(TEXT + " again")
    assert not near.seen("Write a short poem about a lighthouse keeper who lost his key and waits")
    assert not near.seen("Explain tax classes.")
    assert len(near) == 3


def test_short_and_wordless_texts_are_told_apart() -> None:
    """Less than a shingle is a shingle; without words the characters count."""
    near = NearDuplicates()
    assert [near.seen(text) for text in ("hi", "ho", "hi", "???", "!!!", "???")] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_spaces_are_apart() -> None:
    """The same text of two services is two texts."""
    near = NearDuplicates()
    assert [near.seen(TEXT, space) for space in ("a", "b", "a")] == [False, False, True]


def test_the_oldest_are_forgotten() -> None:
    """Memory is bounded."""
    near = NearDuplicates(size=3)
    for text in "first alpha/second beta/third gamma/fourth delta".split("/"):
        near.keep(text)
    assert len(near) == 3
    assert not near.seen("first alpha")
    assert near.seen("fourth delta")


def test_equal_entries_estimate_the_similarity() -> None:
    """Of sets with a Jaccard similarity of a half, half of the entries are equal, about."""
    words = [f"w{n}" for n in range(300)]
    shares = []
    for n in range(30):
        a, b = words[n : n + 152], words[n + 50 : n + 202]
        # 150 shingles each, 100 in common: 100 of 200.
        shares.append(float((_signature(" ".join(a), "") == _signature(" ".join(b), "")).mean()))
    assert abs(float(np.mean(shares)) - 0.5) < 0.05
