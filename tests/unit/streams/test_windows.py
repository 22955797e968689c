"""Windows: provisional while they fill, final once, none lost, none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import WindowMetrics
from schemas.log import RowFlag
from schemas.policy import Windows
from streams.outputs import Output
from tests.support.folding import T0_MS, Story, measurement, of_type, policy, rows_of

CUT = Windows(pane_seconds=2, hop_seconds=10, window_seconds=60)
OTHER = Windows(pane_seconds=1, hop_seconds=5, window_seconds=20)


def windows(outputs: Iterable[Output], *, final: bool) -> list[WindowMetrics]:
    """The windows over all segments and of the control arm that were reported."""
    return [
        w
        for w in of_type(outputs, WindowMetrics)
        if w.final is final and (w.arm, w.segment) == ("control", "all")
    ]


def spans(found: Iterable[WindowMetrics]) -> list[tuple[float, float]]:
    """Their limits in seconds since the beginning."""
    return [((w.start_ms - T0_MS) / 1000, (w.end_ms - T0_MS) / 1000) for w in found]


def test_a_window_is_provisional_while_it_fills_and_then_final() -> None:
    """The window of the first minute grows with each pane, and is final at its end."""
    story = Story()
    story.measure(10)
    story.after(2).tick()
    (first,) = [w for w in windows(story.outputs, final=False) if w.start_ms == T0_MS]
    assert (first.prompts, first.final) == (10, False)
    story.after(10).measure(5)
    story.after(2).tick()
    growing = [w for w in windows(story.outputs, final=False) if w.start_ms == T0_MS]
    assert [w.prompts for w in growing] == [10, 10, 15]
    assert not [w for w in windows(story.outputs, final=True) if w.start_ms == T0_MS]
    story.after(46).tick()
    (final,) = [w for w in windows(story.outputs, final=True) if w.start_ms == T0_MS]
    assert (final.prompts, final.end_ms - final.start_ms) == (15, 60_000)
    story.after(120).tick()
    assert len([w for w in windows(story.outputs, final=True) if w.start_ms == T0_MS]) == 1


def test_a_row_is_in_every_window_that_spans_it() -> None:
    """With a hop of 10 s and a length of 60 s, a row is in six final windows, wholly."""
    story = Story()
    story.after(31).measure(7)
    for _ in range(80):
        story.after(2).tick()
    having = [w for w in windows(story.outputs, final=True) if w.prompts]
    assert spans(having) == [(s, s + 60) for s in (-20, -10, 0, 10, 20, 30)]
    assert {w.prompts for w in having} == {7}


def test_a_silent_service_is_reported_as_zeros() -> None:
    """Windows in which nothing came are there, with no numbers made up."""
    story = Story()
    for _ in range(70):
        story.after(2).tick()
    final = windows(story.outputs, final=True)
    assert spans(final)[-1] == (80.0, 140.0)
    assert {w.prompts for w in final} == {0}
    assert final[-1].processing_seconds_p95 is None
    assert final[-1].score_mean is None


GAPS = st.lists(
    st.tuples(st.floats(min_value=-5, max_value=200), st.integers(min_value=0, max_value=3)),
    min_size=1,
    max_size=25,
)


@given(GAPS)
def test_no_window_is_lost_or_twice(gaps: list[tuple[float, int]]) -> None:
    """Over any jumps of time each window that holds rows is final exactly once, and complete."""
    story = Story()
    rows: list[tuple[int, int]] = []
    for seconds, count in gaps:
        story.after(seconds).measure(count)
        rows.append((story.state.now_ms, count))
    story.now_ms = story.state.now_ms
    for _ in range(35):
        story.after(2).tick()
    final = windows(story.outputs, final=True)
    assert max(Counter(w.start_ms for w in final).values()) == 1
    expected: Counter[int] = Counter()
    for at_ms, count in rows:
        newest = at_ms // CUT.hop_ms * CUT.hop_ms
        for start_ms in range(newest - CUT.window_ms + CUT.hop_ms, newest + 1, CUT.hop_ms):
            expected[start_ms] += count
    found = Counter({w.start_ms: w.prompts for w in final})
    # `+` leaves the windows of zeros out.
    assert +found == +expected


@given(GAPS)
def test_a_window_grows_and_never_changes_after_it_is_final(gaps: list[tuple[float, int]]) -> None:
    """Reports of a window come in order: provisional ones that only grow, then the final one."""
    story = Story()
    for seconds, count in gaps:
        story.after(seconds).measure(count)
    reports: dict[int, list[WindowMetrics]] = {}
    for w in of_type(story.outputs, WindowMetrics):
        if (w.arm, w.segment) == ("control", "all"):
            reports.setdefault(w.start_ms, []).append(w)
    for of_one in reports.values():
        assert not any(w.final for w in of_one[:-1])
        prompts = [w.prompts for w in of_one]
        assert prompts == sorted(prompts)
        assert len({w.id for w in of_one}) == len(of_one)


def test_the_id_of_a_final_window_is_its_name() -> None:
    """A final window has a derived id that a consumer can drop repetitions by."""
    story = Story()
    story.measure(1)
    story.after(60).tick()
    (final,) = [w for w in windows(story.outputs, final=True) if w.start_ms == T0_MS]
    assert final.id == f"shop/{T0_MS}-{T0_MS + 60_000}/control/all"
    ids = [o.id for o in story.outputs]
    assert len(ids) == len(set(ids))


def test_means_are_over_the_rows_that_have_a_value() -> None:
    """Coherence is a mean over semantic rows, the score one over accepted rows."""
    story = Story()
    flags = [RowFlag.SEMANTIC, 0, RowFlag.REJECTED]
    columns = rows_of(range(3), flags=flags, coherence=[0.5, 0, 0], score=[0.75, 0.25, 0])
    story.record(measurement(columns))
    (w,) = windows(story.after(60).tick(), final=True)[-1:]
    assert (w.prompts, w.rejected, w.semantic_prompts) == (2, 1, 1)
    assert (w.score_mean, w.coherence_mean) == (0.5, 0.5)
    assert w.processing_seconds_p50 == pytest.approx(0.1, rel=0.02)


def test_both_arms_are_reported() -> None:
    """The candidate has its own windows as soon as it has rows."""
    story = Story()
    story.measure(3, 4)
    story.after(60).tick()
    arms = {w.arm: w.prompts for w in of_type(story.outputs, WindowMetrics) if w.final}
    assert arms == {"control": 3, "candidate": 4}


def test_segments_are_reported_beside_the_total() -> None:
    """With several segments each has its windows, and `all` is their sum."""
    story = Story()
    columns = rows_of(range(5), segment=[0, 0, 1, 1, 1])
    story.record(measurement(columns, segments=["free", "paid"]))
    final = [w for w in of_type(story.after(60).tick(), WindowMetrics) if w.final]
    assert {w.segment: w.prompts for w in final if w.start_ms == T0_MS} == {
        "all": 5,
        "free": 2,
        "paid": 3,
    }
    assert len({w.id for w in final}) == len(final)


def test_a_segment_called_all_does_not_hide_the_total() -> None:
    """Whatever workers call their segments, `all` is the total over all of them."""
    story = Story()
    columns = rows_of(range(5), segment=[0, 0, 1, 1, 1])
    story.record(measurement(columns, segments=["all", "rest"]))
    final = [w for w in of_type(story.after(60).tick(), WindowMetrics) if w.final]
    assert [w.prompts for w in final if w.start_ms == T0_MS and w.segment == "all"] == [5]
    assert len({w.id for w in final}) == len(final)


def test_a_start_with_the_same_windows_loses_none() -> None:
    """A rollout that starts in the middle of a window neither loses nor cuts it."""
    story = Story()
    story.measure(3)
    story.after(20).start(policy())
    story.measure(4)
    story.after(40).tick()
    (w,) = [w for w in windows(story.outputs, final=True) if w.start_ms == T0_MS]
    assert w.prompts == 7


def test_other_windows_begin_with_their_policy() -> None:
    """After a start with other windows, each of them is whole: none reaches back before it."""
    story = Story()
    story.measure(3)
    story.after(21).start(policy(windows=OTHER))
    before = len(story.outputs)
    story.measure(4)
    for _ in range(60):
        story.after(1).tick()
    found = of_type(story.outputs[before:], WindowMetrics)
    assert {w.end_ms - w.start_ms for w in found} == {20_000}
    assert min(w.start_ms for w in found) == T0_MS + 25_000
    assert len({w.id for w in of_type(story.outputs, WindowMetrics) if w.final}) == len(
        [w for w in of_type(story.outputs, WindowMetrics) if w.final]
    )


def test_panes_of_a_long_silence_are_forgotten() -> None:
    """What no window needs any more is not kept: the state does not grow with time."""
    story = Story()
    for _ in range(500):
        story.after(1).measure(2)
    assert len(story.state.panes) <= CUT.window_ms // CUT.pane_ms + 1
    story.after(86_400).tick()
    assert len(story.state.panes) == 1


def test_windows_say_where_the_rollout_stood() -> None:
    """A window carries the rollout, stage and share in force when it was reported."""
    story = Story()
    story.start()
    story.reach(1)
    w = windows(story.after(60).tick(), final=True)[-1]
    assert (w.rollout_id, w.stage, w.share) == (story.state.rollout.rollout_id, 1, 0.25)
    assert msgspec.json.decode(msgspec.json.encode(w))["share"] == 0.25
