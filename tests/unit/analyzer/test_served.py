"""What was served lately is found by feedback of its time, in whatever order it was read."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from analyzer.served import KEPT_CHARS, ServedTable, served
from tests.support.curating import enriched

DAY_S = 86_400.0


def table(entries: int = 100, seconds: float = DAY_S, late_seconds: float = 10.0) -> ServedTable:
    return ServedTable(entries, seconds, late_seconds)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20), st.randoms())
def test_the_newest_are_kept_in_any_order(
    ages: list[int], entries: int, chance: random.Random
) -> None:
    """Partitions are read side by side: what is kept depends on time stamps alone."""
    events = [served(enriched(n), 1000 * age) for n, age in enumerate(ages)]
    shuffled = events.copy()
    chance.shuffle(shuffled)
    found = table(entries)
    for one in shuffled:
        found.add(one)
    newest = sorted(events, key=lambda one: (one.at_ms, one.event.id))[-entries:]
    at_ms = 50_000
    kept = [one for one in events if found.find(one.event.id, at_ms)]
    assert {one.event.id for one in kept} == {one.event.id for one in newest}
    assert len(found) == len(newest)


def test_age_is_held_against_the_feedback() -> None:
    """An event is found up to a day after and ten seconds before it was published, to the ms."""
    found = table()
    event = enriched(1)
    found.add(served(event, 100_000_000))
    for offset_ms, hit in ((-10_001, False), (-10_000, True), (86_400_000, True),
                           (86_400_001, False)):  # fmt: skip
        assert (found.find(event.id, 100_000_000 + offset_ms) is not None) is hit
    assert found.find("prompts/0/2", 100_000_000) is None


def test_what_is_too_old_is_forgotten() -> None:
    """Time that moves on frees room; a repetition of an event takes none."""
    found = table(seconds=1.0)
    for n in range(5):
        found.add(served(enriched(n), 1000 * n))
        found.add(served(enriched(n), 1000 * n + 1))
    assert len(found) == 5
    found.move_to(3000)
    assert len(found) == 3
    found.clear()
    assert len(found) == 0
    assert found.services == {"shop"}


def test_a_table_that_ran_ahead_is_read_anew() -> None:
    """Only where something is forgotten that feedback of that time may be about."""
    whole = table(entries=1000)
    small = table(entries=10)
    for n in range(100):
        for each in (whole, small):
            each.add(served(enriched(n), 1000 * n))
    assert not whole.has_passed(0)
    assert small.has_passed(50_000)
    assert not small.has_passed(79_000), "it was read 20 s beyond that, and no further"
    assert not small.has_passed(99_000)


def test_long_prompts_are_cut_between_words() -> None:
    """Half of an address would not be known as one any more."""
    text = "word " * ((KEPT_CHARS - 5) // 5) + " jane.doe@example.org and more"
    one = served(enriched(1, text), 0)
    assert one.cut
    assert one.event.prompt.endswith("word  ")
    assert len(one.event.prompt) <= KEPT_CHARS
    short = served(enriched(1, "short"), 0)
    assert (short.cut, short.event.prompt) == (False, "short")
