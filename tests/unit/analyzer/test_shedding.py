"""When the semantic half is left out because too much is waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analyzer.shedding import LoadShedder


@given(st.lists(st.integers(0, 10**9), max_size=30))
def test_without_a_bound_nothing_is_shed(lags: list[int]) -> None:
    """A bound of 0 is no bound."""
    shedder = LoadShedder(0)
    assert not any(shedder.update(lag) for lag in lags)


@given(st.integers(1, 1000), st.lists(st.integers(0, 2000), max_size=50))
def test_shedding_begins_above_the_bound_and_ends_at_half(bound: int, lags: list[int]) -> None:
    """Above the bound always, at half of it and below never, between as before."""
    shedder = LoadShedder(bound)
    before = False
    for lag in lags:
        now = shedder.update(lag)
        if lag > bound:
            assert now
        elif lag <= bound / 2:
            assert not now
        else:
            assert now == before
        before = now
