"""The watch over a stage: exact, cheap to look at, and right about late and absent regressions."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.control import (
    GateBreached,
    GateRecovered,
    RolloutAdvanced,
    RolloutPaused,
    RolloutPromoted,
    RolloutRolledBack,
    Verdict,
)
from schemas.log import Command, RowFlag, Rows
from schemas.policy import Gate, GateRole, default_policy
from schemas.rollout import Phase, Segment
from streams.gates.judge import STARVED, gate_alpha
from streams.metrics import CANDIDATE, CONTROL, gate_samples, metric_samples
from streams.panes import COUNTS, SUMS, new_pane
from streams.samples import Samples
from streams.segments import BySegment
from streams.state import snapshot
from streams.watch import Watch, new_watch
from tests.support.folding import Story, gate, measurement, of_type, policy, rows_of


def typed(gates: list[Gate]) -> list[Gate]:
    """Gates as they come from a policy: enumerations, not their strings."""
    return [msgspec.convert(msgspec.to_builtins(g), Gate) for g in gates]


GATES = typed(
    [
        *(g for g in default_policy().gates if not g.metric.is_health),
        gate("coherence", name="coherence-quantile", statistic="p95", objective="<= 0.9"),
        gate("latency-vs-control", name="no-floor", floor=0.0),
        gate("latency-p95", name="mean-seconds", statistic="mean", objective="<= 0.2"),
    ]
)
EVERY = policy(*GATES, alpha=0.2)


def everybody(rows: Rows) -> BySegment[Samples]:
    """Rows of users whom no gate tells apart."""
    return BySegment(Samples(rows), ["a", "b", "c"])


def chance(seed: int, rows: int, **columns: Any) -> Rows:
    """Rows with any flags and numbers, those of a column given in its place."""
    rng = np.random.default_rng(seed)
    values = {
        "flags": rng.integers(0, 256, rows),
        "processing_seconds": rng.lognormal(-2, 1, rows),
        "rules_score": rng.random(rows),
        "score": rng.random(rows),
        "coherence": rng.random(rows),
        "relevance": rng.random(rows),
    }
    return Rows(**rows_of(range(rows), **values | columns))


@given(st.integers(0, 2**32), st.lists(st.integers(0, 300), min_size=1, max_size=8))
@settings(max_examples=60)
def test_a_batch_counts_as_each_gate_would_count_it(seed: int, sizes: list[int]) -> None:
    """Shared columns and counts give every evidence the very bits of its own update."""
    gates = GATES
    watch, plain = new_watch(EVERY), new_watch(EVERY)
    for n, size in enumerate(sizes):
        rows = chance(seed + n, size)
        watch.take(everybody(rows), [True] * len(gates))
        candidate = rows.has(RowFlag.CANDIDATE)
        for g, evidence in zip(gates, plain.evidence, strict=True):
            values, valid = gate_samples(g, rows)
            evidence.update(values[valid & ~candidate], values[valid & candidate])
    assert msgspec.json.encode(watch.evidence) == msgspec.json.encode(plain.evidence)


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=60)
def test_a_pane_counts_what_its_rows_say(seed: int, size: int) -> None:
    """Counts, sums and moments of a window equal those of the plain definition, to the bit."""
    rows = chance(seed, size, segment=np.random.default_rng(seed).integers(0, 3, size))
    gates = typed([gate("errors-sustained"), gate("score-vs-control", sustained_seconds=9.0)])
    pane = new_pane(0, 1, len(gates))
    pane.add_samples(Samples(rows), ["a", "b", "c"])
    pane.add_recent(everybody(rows), gates, [True, True])
    # A rejected row has no arm, unless it is one that we failed on.
    armed = ~rows.has(RowFlag.REJECTED) | rows.has(RowFlag.SYSTEM_ERROR)
    candidate = rows.has(RowFlag.CANDIDATE) & armed
    for index, name in enumerate(["a", "b", "c"]):
        here = rows.segment == index
        for arm, side in ((CONTROL, ~candidate), (CANDIDATE, candidate)):
            chosen = rows.where(here & side)
            if not here.any():
                assert name not in pane.totals
                continue
            totals = pane.totals[name][arm]
            accepted, semantic = ~chosen.has(RowFlag.REJECTED), chosen.has(RowFlag.SEMANTIC)
            flags = (RowFlag.SYSTEM_ERROR, RowFlag.SEMANTIC, RowFlag.FALLBACK,
                     RowFlag.CACHE_LOOKUP, RowFlag.CACHE_HIT)  # fmt: skip
            counts = [accepted.sum(), (~accepted).sum(), *(chosen.has(f).sum() for f in flags)]
            assert totals.counts.tolist() == counts
            assert len(counts) == len(COUNTS)
            masks = dict.fromkeys(SUMS[:3], accepted) | dict.fromkeys(SUMS[3:], semantic)
            for total, (column, mask) in zip(totals.sums, masks.items(), strict=True):
                assert total == getattr(chosen, column)[mask].astype(np.float64).sum()
            assert totals.histogram.sum() == accepted.sum()
    for i, g in enumerate(gates):
        values, valid = gate_samples(g, rows)
        for arm, side in ((CONTROL, ~candidate), (CANDIDATE, candidate)):
            x = values[valid & side]
            assert pane.moments[arm, i].tolist() == [len(x), x.sum(), np.dot(x, x)]


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
@settings(max_examples=60)
def test_a_glance_says_what_the_report_says(seed: int, control_exists: bool, bad: float) -> None:
    """Whatever was seen, the cheap verdicts are those of the full reports."""
    gates, watch = typed(GATES), new_watch(EVERY, control_exists=control_exists)
    rng = np.random.default_rng(seed)
    for n in range(30):
        size = int(rng.integers(1, 120))
        flags = np.where(rng.random(size) < bad, RowFlag.FALLBACK | RowFlag.CACHE_LOOKUP,
                         RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT)  # fmt: skip
        flags = flags | rng.integers(0, 2, size)
        level = 1.0 - bad * rng.random(size) * 0.6
        rows = chance(seed + n, size, flags=flags, score=level, coherence=level)
        watch.take(everybody(rows), [True] * len(gates))
        reports = [watch.report(i, with_bounds=False) for i in range(len(gates))]
        for i, report in enumerate(reports):
            found = watch.verdict(i, whether_good=True)
            assert found is report.verdict
        failed = [
            i
            for i, report in enumerate(reports)
            if report.verdict is Verdict.FAILED and gates[i].role is not GateRole.PROMOTION
        ]
        assert watch.failing() == failed
        starved = [i for i, report in enumerate(reports) if report.verdict is Verdict.ERROR]
        assert watch.starved() == starved


def test_samples_look_rates_up_by_their_flags() -> None:
    """Every rate has the rows and hits of its definition, in either arm."""
    rows = chance(5, 2000)
    samples = Samples(rows)
    candidate = rows.has(RowFlag.CANDIDATE)
    rates = [g.metric for g in GATES if g.metric.is_rate]
    assert len(set(rates)) == 4
    for metric in rates:
        values, valid = metric_samples(metric, rows)
        for arm, side in ((CONTROL, ~candidate), (CANDIDATE, candidate)):
            x = values[valid & side]
            assert samples.rate(metric, arm) == (len(x), int(x.sum()))


def rolling(*gates: Gate, stage: int = 1, **changes: Any) -> Story:
    """A rollout that a person has brought to a stage, and that stays there."""
    story = Story()
    story.beat()
    story.start(policy(*gates, **{"min_seconds": 80_000.0, "max_seconds": 86_400.0} | changes))
    for _ in range(stage):
        story.command(Command.PROMOTE)
    return story


def stream(
    story: Story, seed: int, batches: int, rows: int = 100, *, step: float = 1.0, **harm: float
) -> Story:
    """Batches of realistic rows of two arms at even shares; harm changes the candidate's.

    Args:
        story: continued until it rolls back, or the batches end.
        seed: of the numbers.
        batches: how many.
        rows: of each.
        step: log time between them, in seconds.
        harm: ``slower`` multiplies latencies, ``worse`` scores, ``errors`` is a rate.
    """
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        half = rows // 2
        flags = np.full(half, RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT)
        flags = np.where(rng.random(half) < 0.2, RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP, flags)
        errors = harm.get("errors", 0.0)
        if errors:
            flags = np.where(rng.random(half) < errors, RowFlag.FALLBACK, flags)
        rules = np.concatenate([rng.beta(12, 8, half), rng.beta(12, 8, half)])
        score = np.clip(rules * 1.05 + rng.normal(0, 0.03, rows), 0, 1)
        score[half:] *= harm.get("worse", 1.0)
        seconds = rng.lognormal(-1.8, 0.5, rows)
        seconds[half:] *= harm.get("slower", 1.0)
        columns = {
            "processing_seconds": seconds,
            "rules_score": rules,
            "score": score,
            "coherence": rng.beta(16, 4, rows),
            "relevance": rng.beta(14, 6, rows),
        }
        story.after(step).two_arms(half, half, candidate_flags=flags, **columns)
        if story.state.rollout.phase is Phase.ROLLED_BACK:
            break
    return story


def gates_but(*names: str) -> tuple[Gate, ...]:
    """The default policy's gates on prompts, without some."""
    return tuple(
        g for g in default_policy().gates if not g.metric.is_health and g.name not in names
    )


@pytest.mark.parametrize("seed", range(4))
def test_equal_arms_are_not_rolled_back_however_often_one_looks(seed: int) -> None:
    """Looked at after each of 3,000 batches at 50 %: nothing is taken back, nothing pauses."""
    story = stream(rolling(*gates_but("improvement"), stage=2), seed, 3000, rows=40, step=0.1)
    assert story.state.measured == 3000 * 40
    assert not of_type(story.outputs, RolloutRolledBack)
    assert not of_type(story.outputs, RolloutPaused)


@pytest.mark.parametrize(
    ("harm", "broken"),
    [
        ({"slower": 1.6}, "latency-vs-control"),
        ({"worse": 0.88}, "score-vs-control"),
        ({"errors": 0.03}, "semantic-errors"),
    ],
)
def test_a_late_regression_is_not_hidden_by_a_long_healthy_past(
    harm: dict[str, float], broken: str
) -> None:
    """After 200,000 good rows a regression is found within 6,000, far before the mean moves."""
    story = stream(rolling(*gates_but("improvement", "latency-p95"), stage=2), 3, 2000, step=0.1)
    assert story.state.rollout.phase is Phase.PROGRESSING
    before = story.state.measured
    stream(story, 4, 200, **harm)
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == broken
    assert story.state.measured - before <= 6000


def test_the_restart_of_a_resumption_has_its_own_alpha() -> None:
    """Evidence begins anew, with the share of alpha that is kept for it, each time less."""
    story = rolling(gate("coherence"), gate("semantic-errors"))
    gates = story.state.policy.gates
    spent = [story.state.watch.alpha_breach]
    for _ in range(3):
        story.after(1).measure(0, 150, coherence=0.65)
        story.command(Command.PAUSE)
        story.after(1).command(Command.RESUME)
        assert story.state.watch.evidence[0].samples == 0
        spent.append(story.state.watch.alpha_breach)
    assert spent == [gate_alpha(0.05, gates, stages=4, restart=r) for r in range(4)]
    assert 4 * spent[0] + sum(spent[1:]) < 0.05 / 2
    story.command(Command.PROMOTE)
    assert story.state.watch.alpha_breach == spent[0]
    # Another rollout has an alpha of its own.
    story.command(Command.ABORT)
    story.start(story.state.policy)
    assert story.state.resumptions == 0


def test_a_metric_that_is_missing_pauses_and_never_rolls_back() -> None:
    """Error pauses: a guardrail whose metric nobody measures cannot be judged, and says so."""
    story = rolling(gate("coherence"), gate("semantic-errors"))
    story.after(1).measure(0, 200 * STARVED - 1, flags=0)
    assert not of_type(story.outputs, RolloutPaused)
    story.after(1).measure(0, 1, flags=0)
    (event,) = of_type(story.outputs, RolloutPaused)
    assert event.gate is not None
    assert (event.gate.gate, event.gate.verdict) == ("coherence", Verdict.ERROR)
    assert "0 of 200 candidate rows, after 2000 rows" in event.reason
    for _ in range(5):
        story.after(1).measure(0, 2000, flags=0)
    assert len(of_type(story.outputs, RolloutPaused)) == 1
    assert not of_type(story.outputs, RolloutRolledBack)


def test_a_dry_run_that_cannot_be_judged_does_not_pause() -> None:
    """Neither a breach nor an error of a gate on trial changes anything."""
    story = rolling(gate("coherence", dry_run=True), gate("system-errors"))
    story.after(1).measure(0, 5000, flags=0)
    assert story.state.rollout.phase is Phase.PROGRESSING


def test_rows_of_the_warm_up_starve_no_gate() -> None:
    """What a gate may not count yet is no sign that its metric is missing."""
    story = rolling(gate("cache-hits", warmup_seconds=30.0), gate("semantic-errors"))
    story.after(10).measure(0, 5000)
    assert story.state.rollout.phase is Phase.PROGRESSING
    assert story.state.watch.candidate_rows == [0, 5000]


def test_a_small_control_arm_is_waited_for() -> None:
    """A holdback of a few rows is no error while it fills."""
    watch, gates = new_watch(EVERY), GATES
    place = [g.name for g in gates].index("score-vs-control")
    rows = chance(1, 3000, flags=RowFlag.CANDIDATE | RowFlag.SEMANTIC)
    few = chance(2, 100, flags=RowFlag.SEMANTIC)
    for each in (rows, few):
        watch.take(everybody(each), [True] * len(gates))
    found = watch.verdict(place)
    assert found is Verdict.INCONCLUSIVE


def errors(story: Story, rate: float, seconds: int, rows: int = 300) -> None:
    """Batches, one a second, with a share of errors among the candidate's rows."""
    for _ in range(seconds):
        flags = np.where(np.arange(rows) < round(rate * rows), RowFlag.FALLBACK, RowFlag.SEMANTIC)
        story.after(1).measure(0, rows, flags=flags)


def test_a_lasting_breach_needs_the_evidence_and_the_time() -> None:
    """Long but uncertain, or certain but short: nothing happens; both: it is taken back."""
    uncertain = rolling(gate("errors-sustained", min_samples=100))
    errors(uncertain, 0.012, 400, rows=83)
    assert uncertain.state.watch.timers[0].satisfied
    assert uncertain.state.rollout.phase is Phase.PROGRESSING
    short = rolling(gate("errors-sustained"))
    errors(short, 0.5, 200)
    assert short.state.watch.evidence[0].log_e_breach > -math.log(1e-9)
    assert short.state.rollout.phase is Phase.PROGRESSING
    errors(short, 0.5, 101)
    (event,) = of_type(short.outputs, RolloutRolledBack)
    assert "for 300 s of 300 s" in event.reason


def test_a_window_with_too_few_rows_does_not_end_a_spell() -> None:
    """A pause begins a new revision with an empty window: a breach lasts through it."""
    story = rolling(gate("errors-sustained"))
    errors(story, 0.5, 200)
    began_ms = story.state.watch.timers[0].since_ms
    story.command(Command.PAUSE)
    errors(story, 0.5, 20, rows=30)
    assert story.state.watch.timers[0].since_ms == began_ms
    errors(story, 0.5, 90)
    assert of_type(story.outputs, RolloutRolledBack)


def test_a_breach_that_comes_and_goes_acts_once() -> None:
    """A signal that was certified to be broken pauses, and that is all it ever does in a stage."""
    story = rolling(gate("cache-hits", warmup_seconds=0.0))
    for _ in range(3):
        story.after(1).measure(0, 600, flags=RowFlag.CACHE_LOOKUP)
        story.after(1).measure(0, 6000)
    assert len(of_type(story.outputs, RolloutPaused)) == 1
    breached = len(of_type(story.outputs, GateBreached))
    recovered = len(of_type(story.outputs, GateRecovered))
    assert breached >= 1
    assert breached - recovered in (0, 1)


def test_a_promotion_gate_against_control_cannot_hold_up_the_last_stage() -> None:
    """At 100 % there is nobody to compare with: the gate was certified in the stages before."""
    better = gate("score-vs-control", name="better", objective=">= +2%", role=GateRole.PROMOTION)
    story = rolling(better, gate("semantic-errors"), stage=3, min_seconds=10.0)
    assert story.state.rollout.share == 1.0
    story.after(11).measure(0, 300)
    assert of_type(story.outputs, RolloutPromoted)


def test_a_promotion_gate_that_fails_takes_nothing_back() -> None:
    """No improvement is a reason to stay, not to go back."""
    story = rolling(gate("improvement"), gate("semantic-errors"), min_seconds=10.0)
    for _ in range(30):
        story.after(1).measure(100, 100, score=0.4)
    assert story.state.rollout.phase is Phase.PROGRESSING
    assert story.state.rollout.stage == 1
    assert not of_type(story.outputs, GateBreached)
    assert [e.stage for e in of_type(story.outputs, RolloutAdvanced)] == [1]


def test_the_evidence_takes_the_same_room_after_any_number_of_rows() -> None:
    """Five times the rows make the state larger by digits only."""

    def size(batches: int) -> int:
        story = stream(rolling(stage=2), 1, batches, rows=200)
        return len(snapshot(story.state))

    assert size(400) < size(80) * 1.2


def test_a_watch_is_encoded_and_read_exactly() -> None:
    """What a monitor restores is what it had, to the last bit."""
    watch, gates = new_watch(EVERY), GATES
    watch.take(everybody(chance(9, 500)), [True] * len(gates))
    data = msgspec.msgpack.encode(watch)
    back = msgspec.msgpack.decode(data, type=Watch)
    assert back == watch
    assert msgspec.msgpack.encode(back) == data


def test_a_gate_may_be_about_some_users_alone() -> None:
    """Fairness (M30): what harms a small segment is not averaged away over everybody."""
    staff = Segment(name="staff", attribute="plan", values=["staff"])
    for_staff = gate("coherence", name="coherence-staff", segments=["staff"])
    story = rolling(gate("coherence"), for_staff, segments=[staff])
    for _ in range(40):
        first = story.state.measured
        columns = rows_of(
            range(first, first + 400),
            flags=RowFlag.CANDIDATE | RowFlag.SEMANTIC,
            segment=np.arange(400) % 20 == 0,
            coherence=np.where(np.arange(400) % 20 == 0, 0.6, 0.85),
        )
        story.after(1).record(
            measurement(columns, revision=story.state.rollout.revision, segments=["rest", "staff"])
        )
        if story.state.rollout.phase is Phase.ROLLED_BACK:
            break
    (event,) = of_type(story.outputs, RolloutRolledBack)
    assert event.gate is not None
    assert event.gate.gate == "coherence-staff"
    assert event.gate.samples == story.state.measured // 20
    assert not any(e.gate.gate == "coherence" for e in of_type(story.outputs, GateBreached))


def test_a_promotion_gate_may_have_its_time_in_rows() -> None:
    """Not certified after so many rows: the rollout pauses and says so, once."""
    story = rolling(gate("improvement", max_samples=1000), gate("semantic-errors"))
    for _ in range(15):
        story.after(1).measure(100, 100, score=0.5)
    (event,) = of_type(story.outputs, RolloutPaused)
    assert "gate improvement is not certified after 1000 rows" in event.reason
    assert event.gate is not None
    assert event.gate.samples == 1000
    story.command(Command.RESUME)
    for _ in range(5):
        story.after(1).measure(100, 100, score=0.5)
    assert len(of_type(story.outputs, RolloutPaused)) == 1


def test_a_promotion_gate_that_is_certified_does_not_run_out() -> None:
    """More rows than it may take are no harm once it holds."""
    story = rolling(gate("improvement", max_samples=1000), gate("semantic-errors"))
    for _ in range(20):
        story.after(1).measure(100, 100, score=0.7)
    assert not of_type(story.outputs, RolloutPaused)


def test_a_report_says_how_far_the_evidence_is() -> None:
    """The log e-value and the boundary that certifies, of the side that the verdict is about."""
    watch = new_watch(EVERY)
    watch.take(everybody(chance(9, 3000)), [True] * len(GATES))
    for report in watch.reports():
        if report.verdict in (Verdict.FAILED, Verdict.SUCCESSFUL):
            assert report.evidence is not None
            assert report.boundary is not None
            assert report.evidence >= report.boundary
