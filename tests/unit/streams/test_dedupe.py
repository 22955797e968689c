"""Each source position is counted once, however batches are repeated, cut and overlapped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.log import Rows
from streams.dedupe import new_rows
from tests.support.folding import rows_of


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """What workers deliver of two partitions: (partition, begin, end), never beyond a gap."""
    reached = {0: 0, 1: 0}
    made = []
    for _ in range(draw(st.integers(min_value=1, max_value=12))):
        partition = draw(st.sampled_from([0, 1]))
        begin = draw(st.integers(min_value=0, max_value=reached[partition]))
        end = begin + draw(st.integers(min_value=1, max_value=6))
        reached[partition] = max(reached[partition], end)
        made.append((partition, begin, end))
    return made


@given(deliveries())
def test_each_position_counts_once(delivered: list[tuple[int, int, int]]) -> None:
    """After any repetitions and overlaps every delivered position was counted exactly once."""
    seen: dict[str, int] = {}
    counted: list[tuple[int, int]] = []
    for partition, begin, end in delivered:
        rows = Rows(**rows_of(range(begin, end), partition=partition))
        fresh = rows.where(new_rows(rows, "prompts", seen))
        counted += [(partition, int(offset)) for offset in fresh.offset]
    assert len(counted) == len(set(counted))
    assert set(counted) == {(p, o) for p, begin, end in delivered for o in range(begin, end)}


def test_a_batch_of_several_partitions_is_judged_by_each() -> None:
    """Within one batch one partition may be a repetition and the other new."""
    seen = {"prompts/0": 2}
    rows = Rows(**rows_of([0, 1, 5, 0, 1], partition=[0, 0, 0, 1, 1]))  # type: ignore[arg-type]
    fresh = rows.where(new_rows(rows, "prompts", seen))
    assert list(zip(fresh.partition, fresh.offset, strict=True)) == [(0, 5), (1, 0), (1, 1)]
    assert seen == {"prompts/0": 6, "prompts/1": 2}


def test_a_batch_that_comes_again_among_others_is_dropped() -> None:
    """Batches that are counted together are judged in their order, each row by all before it."""
    seen: dict[str, int] = {}
    offsets = [0, 1, 2, 1, 2, 3, 4]
    rows = Rows(**rows_of(offsets))
    fresh = new_rows(rows, "prompts", seen)
    assert rows.offset[fresh].tolist() == [0, 1, 2, 3, 4]
    assert fresh.tolist() == [True, True, True, False, False, True, True]


def test_topics_do_not_mix() -> None:
    """Offset 0 of another topic is another prompt."""
    seen: dict[str, int] = {}
    for topic in ("a.prompts", "b.prompts"):
        assert new_rows(Rows(**rows_of([0])), topic, seen).tolist() == [True]


def test_an_empty_batch_is_nothing() -> None:
    """A batch without rows neither counts nor fails."""
    seen: dict[str, int] = {}
    assert len(new_rows(Rows(**rows_of([])), "prompts", seen)) == 0
    assert seen == {}
