"""Panes: histogram quantiles, counts a row, and totals that add up however they are cut."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.log import COLUMNS, RowFlag, Rows
from streams.metrics import CANDIDATE, CONTROL
from streams.panes import COUNTS, SUMS, ArmTotals, merge_totals, new_pane, quantile
from streams.samples import Samples
from tests.support.folding import rows_of

SECONDS = st.floats(min_value=1e-5, max_value=140.0, allow_nan=False)
FLAGS = st.integers(min_value=0, max_value=255)


def totals(**columns: object) -> ArmTotals:
    """Totals of rows with the given columns."""
    made = ArmTotals.zero()
    length = max(len(np.atleast_1d(np.asarray(c))) for c in columns.values())
    made.add_samples(Samples(Rows(**rows_of(range(length), **columns))), CONTROL)
    return made


def counts(of: ArmTotals) -> dict[str, int]:
    """The counts by name."""
    return dict(zip(COUNTS, of.counts.tolist(), strict=True))


@given(
    st.lists(SECONDS, min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99]),
)
def test_quantile_is_exact_to_two_per_cent(seconds: list[float], q: float) -> None:
    """A quantile differs by at most 2 % from the row that stands at that rank."""
    found = quantile(totals(processing_seconds=seconds).histogram, q)
    exact = np.sort(np.float32(seconds))[int(np.ceil(q * len(seconds))) - 1]
    # A single-precision time at the limit of two buckets may fall into either.
    assert found == pytest.approx(exact, rel=0.02 + 1e-4)


def test_quantile_of_nothing_is_none() -> None:
    """Without rows there is no latency, and none is made up."""
    assert quantile(ArmTotals.zero().histogram, 0.95) is None


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (1e-9, 0), (1e6, -1), (3e38, -1)])
def test_times_beyond_the_buckets_count_at_the_ends(seconds: float, bucket: int) -> None:
    """A time of zero, or of days, is in the first or the last bucket: no row is lost."""
    histogram = totals(processing_seconds=[seconds]).histogram
    assert histogram[bucket] == 1
    assert histogram.sum() == 1


def test_each_flag_counts_in_its_column() -> None:
    """Every flag of a row is counted in the column of its name, and only there."""
    flags = [0, RowFlag.REJECTED, RowFlag.SYSTEM_ERROR, RowFlag.SEMANTIC, RowFlag.FALLBACK,
             RowFlag.CACHE_LOOKUP, RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT]  # fmt: skip
    assert counts(totals(flags=flags)) == {
        "prompts": 6,
        "rejected": 1,
        "system_errors": 1,
        "semantic_prompts": 1,
        "semantic_errors": 1,
        "cache_lookups": 2,
        "cache_hits": 1,
    }


def test_rejected_rows_have_no_times_and_scores() -> None:
    """A rejected prompt is counted, but its empty columns do not pull the means down."""
    made = totals(flags=[0, RowFlag.REJECTED], processing_seconds=[0.5, 0.0], score=[0.75, 0.0])
    sums = dict(zip(SUMS, made.sums.tolist(), strict=True))
    assert made.histogram.sum() == 1
    assert (sums["processing_seconds"], sums["score"]) == (0.5, 0.75)


def test_semantic_sums_are_of_semantic_rows_only() -> None:
    """Coherence and relevance of a row that the model did not see are not added."""
    made = totals(flags=[RowFlag.SEMANTIC, RowFlag.FALLBACK], coherence=[0.5, 0.25])
    assert dict(zip(SUMS, made.sums.tolist(), strict=True))["coherence"] == 0.5


@given(
    rows=st.lists(
        st.tuples(FLAGS, st.integers(min_value=0, max_value=2), SECONDS), min_size=1, max_size=40
    ),
    cut=st.integers(min_value=0, max_value=40),
)
def test_totals_do_not_depend_on_how_rows_are_cut(
    rows: list[tuple[int, int, float]], cut: int
) -> None:
    """Two batches in two panes have the same counts and histogram as one batch in one."""
    flags, segments, seconds = zip(*rows, strict=True)
    columns = rows_of(range(len(rows)), flags=flags, segment=segments, processing_seconds=seconds)
    names = ["a", "b", "c"]
    whole, head, tail = (new_pane(0, 0, 0) for _ in range(3))
    whole.add_samples(Samples(Rows(**columns)), names)
    for pane, part in ((head, slice(None, cut)), (tail, slice(cut, None))):
        pane.add_samples(Samples(Rows(**{name: columns[name][part] for name in COLUMNS})), names)
    merged, expected = merge_totals([head, tail]), merge_totals([whole])
    assert merged.keys() == expected.keys()
    for segment, arms in expected.items():
        for found, wanted in zip(merged[segment], arms, strict=True):
            assert (found.counts == wanted.counts).all()
            assert (found.histogram == wanted.histogram).all()
            assert found.sums == pytest.approx(wanted.sums)


def test_arms_and_segments_are_kept_apart() -> None:
    """A row counts in the arm of its flag and the segment of its index."""
    pane = new_pane(0, 0, 0)
    flags = [0, RowFlag.CANDIDATE, RowFlag.CANDIDATE]
    pane.add_samples(
        Samples(Rows(**rows_of(range(3), flags=flags, segment=[0, 0, 1]))), ["free", "paid"]
    )
    prompts = {
        (segment, arm): counts(pane.totals[segment][arm])["prompts"]
        for segment in ("free", "paid")
        for arm in (CONTROL, CANDIDATE)
    }
    assert prompts == {
        ("free", CONTROL): 1,
        ("free", CANDIDATE): 1,
        ("paid", CONTROL): 0,
        ("paid", CANDIDATE): 1,
    }


def test_rejected_rows_count_on_the_control_arm() -> None:
    """Nothing but the position of a rejected row has a meaning: its arm has none, either."""
    pane = new_pane(0, 0, 0)
    flags = [RowFlag.REJECTED | RowFlag.CANDIDATE]
    pane.add_samples(Samples(Rows(**rows_of([0], flags=flags))), ["rest"])
    assert [counts(arm)["rejected"] for arm in pane.totals["rest"]] == [1, 0]


def test_merging_leaves_the_panes_as_they_were() -> None:
    """A pane is merged into many windows: adding up must not add into it."""
    pane = new_pane(0, 0, 0)
    pane.add_samples(Samples(Rows(**rows_of(range(3)))), ["rest"])
    before = msgspec.structs.replace(pane)
    merge_totals([pane, pane])["rest"][0].counts += 7
    assert counts(pane.totals["rest"][0]) == counts(before.totals["rest"][0])
    assert counts(pane.totals["rest"][0])["prompts"] == 3
