"""From control events and windows to runs, metrics and aliases (M79, M80, M82)."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from schemas.control import (
    CommandRejected,
    DriftDetected,
    GateBreached,
    GateRecovered,
    GateStatus,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutPaused,
    RolloutResumed,
    Verdict,
)
from schemas.drift import DriftArm, DriftDetector, DriftDirection, DriftFeature, DriftReading
from schemas.policy import Policy, default_policy
from streams.tracking.drafts import (
    Aliases,
    Points,
    RunDraft,
    RunEnd,
    RunRef,
    RunStart,
    RunStatus,
    Side,
)
from streams.tracking.points import (
    STATUS_EVERY_MS,
    StatusFilter,
    report_values,
    status_points,
    window_points,
)
from streams.tracking.runs import run_operations
from tests.support.samples import sample
from tests.support.tracked import (
    MADE_MS,
    ROLLOUT,
    promoted,
    report,
    rolled_back,
    started,
    window,
)

RUN = RunRef("shop", ROLLOUT)


def test_a_rollout_begins_as_a_run_with_all_that_it_is_judged_by() -> None:
    """Policy, deployments and versions are parameters; the policy is a document too."""
    start, share, aliases = run_operations(started())
    assert isinstance(start, RunStart)
    assert start.run == RUN
    assert start.hop_ms == default_policy().windows.hop_ms
    expected = {
        "blue": "baseline",
        "green": "semantic",
        "blue.kind": "rules",
        "green.kind": "semantic",
        "green.semantic_weight": "0.3",
        "code_version": "0.1.0",
        "policy_hash": "0123456789abcdef",
        "stages": "0% 25% 50% 100%",
        "alpha": "0.05",
        "gate.coherence": "coherence mean >= 0.7 (guardrail)",
        "gate.score-vs-control": "score mean >= -5% against control (guardrail)",
    }
    assert start.params.items() >= expected.items()
    assert start.policy is not None
    again = msgspec.convert(yaml.safe_load(start.policy), Policy)
    assert again.hash == default_policy().hash
    assert {side: d.name for side, d in start.deployments.items()} == {
        Side.BLUE: "baseline",
        Side.GREEN: "semantic",
    }
    assert share == Points(RUN, MADE_MS, {"rollout/share": 0.0, "rollout/stage": 0.0})
    assert aliases == Aliases(RUN, MADE_MS, Side.BLUE, Side.GREEN, Side.BLUE)


def test_no_parameter_is_longer_than_mlflow_takes() -> None:
    """500 characters is the limit of older servers, 6,000 that of 3.17."""
    start = run_operations(started())[0]
    assert isinstance(start, RunStart)
    assert max(map(len, start.params.values())) <= 500
    assert max(map(len, start.params)) <= 250


def test_a_start_of_an_older_version_is_still_a_run() -> None:
    """It does not say policy and deployments: there are fewer parameters, and no versions."""
    old = msgspec.structs.replace(started(), policy=None, deployments=[])
    start = run_operations(old)[0]
    assert isinstance(start, RunStart)
    assert start.policy is None
    assert start.deployments == {}
    assert start.params["green"] == "semantic"


def test_a_promotion_moves_champion_and_blue_to_green() -> None:
    """The run is finished, with what decided it."""
    operations = run_operations(promoted())
    assert RunEnd(RUN, MADE_MS + 60_000, RunStatus.FINISHED) in operations
    aliases = operations[-1]
    assert isinstance(aliases, Aliases)
    assert (aliases.champion, aliases.blue, aliases.green) == (Side.GREEN, Side.GREEN, None)
    points = operations[0]
    assert isinstance(points, Points)
    assert points.values["gate/coherence/verdict"] == 0.0


@pytest.mark.parametrize(
    ("actor", "status"), [("driftgate", RunStatus.FAILED), ("ann", RunStatus.KILLED)]
)
def test_a_rollback_moves_the_aliases_back(actor: str, status: RunStatus) -> None:
    """Blue is what to load; a gate makes the run fail, a person kills it."""
    operations = run_operations(rolled_back(actor=actor))
    assert RunEnd(RUN, MADE_MS + 60_000, status) in operations
    aliases = operations[-1]
    assert isinstance(aliases, Aliases)
    assert (aliases.champion, aliases.blue, aliases.green) == (Side.BLUE, Side.BLUE, None)
    assert aliases.verdict == "rolled_back"
    tags = next(o.tags for o in operations if isinstance(o, RunDraft))
    assert tags["driftgate.verdict"] == "rolled_back"
    assert tags["driftgate.gate"] == ("coherence" if actor == "driftgate" else "")
    assert tags["driftgate.reason"] == "coherence is 0.5"


def of_type(event_type: type[msgspec.Struct]) -> msgspec.Struct:
    made = sample(event_type)
    return msgspec.structs.replace(made, service="shop", rollout_id=ROLLOUT, at_ms=MADE_MS)


@pytest.mark.parametrize(
    ("event_type", "metrics", "tag"),
    [
        (RolloutAdvanced, {"rollout/share", "rollout/stage"}, "driftgate.last_reason"),
        (RolloutPaused, {"rollout/share", "rollout/stage"}, "driftgate.last_reason"),
        (RolloutResumed, {"rollout/share", "rollout/stage"}, "driftgate.last_reason"),
        (GateBreached, {"gate/a/broken", "gate/a/value"}, "driftgate.breached"),
        (GateRecovered, {"gate/a/broken", "gate/a/verdict"}, None),
        (RollbackConfirmed, {"rollback/confirmed_seconds"}, "driftgate.confirmed_by"),
    ],
)
def test_every_decision_leaves_a_mark(
    event_type: type[msgspec.Struct], metrics: set[str], tag: str | None
) -> None:
    """Metrics at the time of the decision, and a tag where it says more than a number."""
    operations = run_operations(of_type(event_type))  # type: ignore[arg-type]
    points = [o for o in operations if isinstance(o, Points)]
    assert metrics <= {name for each in points for name in each.values}
    assert {each.at_ms for each in points} == {MADE_MS}
    tags = {name for o in operations if isinstance(o, RunDraft) for name in o.tags}
    assert (tag in tags) if tag else not tags


def test_drift_is_a_metric_of_its_feature() -> None:
    """1 when it begins; the statistic beside it."""
    event = DriftDetected(
        **{k: getattr(of_type(DriftDetected), k) for k in DriftDetected.__struct_fields__}
        | {"feature": DriftFeature.RELEVANCE, "detector": DriftDetector.ADWIN, "statistic": 7.5,
           "arm": DriftArm.ALL, "direction": DriftDirection.DOWN}
    )  # fmt: skip
    (points,) = run_operations(event)
    assert isinstance(points, Points)
    assert points.values == {
        "drift/relevance/adwin/drifting": 1.0,
        "drift/relevance/adwin/statistic": 7.5,
    }


def test_what_is_about_no_rollout_has_no_run() -> None:
    """A command that was refused before the first rollout changes nothing."""
    refused = msgspec.structs.replace(of_type(CommandRejected), rollout_id=None)
    assert run_operations(refused) == []  # type: ignore[arg-type]


def test_a_window_is_metrics_of_its_arm_at_its_end() -> None:
    """Counts, means that there are, and the rates that people look for; no NaN."""
    points = window_points(window(2))
    assert points is not None
    assert points.run == RUN
    assert points.at_ms == MADE_MS + 30_000
    expected = {
        "candidate/prompts": 100.0,
        "candidate/processing_seconds_p95": 0.2,
        "candidate/coherence_mean": 0.8,
        "candidate/prompts_per_second": 10.0,
        "candidate/semantic_error_rate": 0.05,
    }
    assert points.values.items() >= expected.items()
    assert "candidate/relevance_mean" not in points.values
    assert "candidate/cache_hit_rate" not in points.values


def test_a_segment_has_metrics_of_its_own_and_a_provisional_window_none() -> None:
    """Only what will not change is written."""
    testers = window_points(window(segment="testers"))
    assert testers is not None
    assert "candidate/testers/prompts" in testers.values
    assert window_points(window(final=False)) is None


def test_a_report_is_numbers_and_nothing_infinite() -> None:
    """A bound that is not known yet is left out; the verdict counts from best to worst."""
    assert report_values(report()) == {
        "gate/coherence/verdict": 3.0,
        "gate/coherence/samples": 300.0,
        "gate/coherence/value": 0.5,
        "gate/coherence/limit": 0.7,
        "gate/coherence/lower": 0.45,
    }


def status(at_ms: int, service: str = "shop") -> GateStatus:
    return GateStatus(
        id="1",
        service=service,
        rollout_id=ROLLOUT,
        revision=1,
        stage=1,
        share=0.25,
        stage_seconds=3.0,
        at_ms=at_ms,
        measured=10,
        live_workers=["w1", "w2"],
        gates=[report("coherence", Verdict.INCONCLUSIVE)],
        drift=[
            DriftReading(
                feature=DriftFeature.LATENCY,
                detector=DriftDetector.PAGE_HINKLEY,
                statistic=None,
                threshold=50.0,
                drifting=False,
            )
        ],
    )


def test_the_state_of_the_gates_is_metrics() -> None:
    """Of the gates, the workers and the drift detectors that have anything to say."""
    points = status_points(status(MADE_MS))
    assert points.values["gate/coherence/verdict"] == 1.0
    assert points.values["workers/live"] == 2.0
    assert points.values["drift/latency/page_hinkley/drifting"] == 0.0
    assert "drift/latency/page_hinkley/statistic" not in points.values


def test_states_of_the_gates_are_thinned_out() -> None:
    """One in each stretch of log time, for each service; the first one at once."""
    found = StatusFilter()
    passed = [found.passes(status(MADE_MS + 2000 * n)) for n in range(12)]
    assert [n for n, ok in enumerate(passed) if ok] == [0, 5, 10]
    assert found.passes(status(MADE_MS, "other"))
    assert STATUS_EVERY_MS == 10_000
