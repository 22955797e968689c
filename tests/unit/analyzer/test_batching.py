"""Batches as large as their time allows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analyzer.batching import BatchSizer


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0.0, 100.0)), max_size=20),
)
def test_a_batch_is_never_empty_nor_over_the_limit(
    limit: int, batches: list[tuple[int, float]]
) -> None:
    """Whatever batches took, the next one has between 1 and the limit."""
    sizer = BatchSizer(limit, 0.15)
    for records, seconds in batches:
        assert 1 <= sizer.records <= limit
        sizer.update(records, seconds)
    assert 1 <= sizer.records <= limit


def test_a_slow_pace_makes_small_batches_and_a_fast_one_large() -> None:
    """At 10 ms a prompt a batch of 0.15 s has 15; when the cache is warm it grows to the limit."""
    sizer = BatchSizer(256, 0.15)
    for _ in range(20):
        sizer.update(sizer.records, sizer.records * 0.010)
    assert sizer.records == 15
    for _ in range(40):
        sizer.update(sizer.records, sizer.records * 0.0001)
    assert sizer.records == 256


def test_a_limit_below_the_least_batch_is_kept() -> None:
    """A limit of 2 is 2, not the least batch that would pay."""
    sizer = BatchSizer(2, 0.15)
    sizer.update(2, 0.001)
    assert sizer.records == 2
