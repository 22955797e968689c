"""What is remembered for a while, and how much goes into a call."""

from __future__ import annotations

from streams.tracking.chunks import ChunkSize
from streams.tracking.recent import Recent, RecentEvents


def test_the_oldest_are_forgotten_and_the_bytes_are_counted() -> None:
    """A thousand events of 700 bytes in 100,000 bytes: the last hundred are there."""
    events = RecentEvents(max_bytes=100_000)
    for number in range(1000):
        events.put(str(number), Recent(b"x" * 700, number, number))
    assert len(events) == 100
    assert events.bytes == 100_000
    assert events.pop("899") is None
    assert events.pop("900") == Recent(b"x" * 700, 900, 900)
    assert events.pop("900") is None


def test_an_event_that_comes_again_counts_once() -> None:
    """A repetition replaces what is remembered."""
    events = RecentEvents(max_bytes=10_000)
    for value in (b"a" * 100, b"b" * 50):
        events.put("1", Recent(value, 1, 1))
    assert len(events) == 1
    assert events.bytes == 350
    assert events.pop("1") == Recent(b"b" * 50, 1, 1)
    assert events.bytes == 0


def test_one_that_is_larger_than_all_the_room_is_not_kept() -> None:
    """And costs nothing."""
    events = RecentEvents(max_bytes=500)
    events.put("1", Recent(b"x" * 501, 1, 1))
    assert len(events) == 0
    assert events.bytes == 0


def test_chunks_follow_the_pace() -> None:
    """At 40 traces a second a call of a second has 40; it gets there by doubling."""
    size = ChunkSize(target_s=1.0)
    seen = []
    for _ in range(5):
        seen.append(size.traces)
        size.took(size.traces, size.traces / 40)
    assert seen == [10, 20, 40, 40, 40]
    size.took(40, 4.0)
    assert size.traces == 10


def test_a_call_that_fails_is_halved_down_to_one() -> None:
    """What was too much for a time-out becomes small enough, or shows who it is."""
    size = ChunkSize()
    for _ in range(10):
        size.failed()
    assert size.traces == 1
    size.took(1, 0.0)
    assert size.traces == 2


def test_no_call_has_more_than_mlflow_links_at_once() -> None:
    """However fast it is."""
    size = ChunkSize()
    for _ in range(20):
        size.took(size.traces, 0.001)
    assert size.traces == 100
