"""The sections of the page: what they hold, also of a service that nothing is known of."""

from __future__ import annotations

import msgspec
import pytest

from schemas.control import GateReport
from schemas.drift import DriftDetector, DriftFeature, DriftReading
from schemas.topics import Topic
from streams.console.decode import decode
from streams.console.model import ConsoleModel, Section, ServiceView
from streams.console.views import before_after, encode_section, services_view
from tests.support.folding import T0_MS
from tests.support.samples import sample
from tests.support.staging import Staged, staged_policy


@pytest.fixture(scope="module")
def shop() -> Staged:
    made = Staged("shop", now_ms=T0_MS)
    made.rolled_out(5, staged_policy(20.0))
    return made


def model_of(story: Staged) -> ConsoleModel:
    model = ConsoleModel()
    for output in story.outputs:
        model.take(output.event, output.at_ms)
    for at_ms, value in story.log:
        found = decode(Topic.LOG, None, value, [])
        assert found is not None
        model.take(found, at_ms)
    return model


def section(model: ConsoleModel, name: Section, service: str = "shop", now_ms: int = T0_MS) -> dict:  # type: ignore[type-arg]
    found: dict = msgspec.json.decode(  # type: ignore[type-arg]
        encode_section(name, model, service, now_ms, most_workers=4)
    )
    return found


@pytest.mark.parametrize("name", list(Section))
def test_a_service_that_nothing_is_known_of_is_shown_as_such(name: Section) -> None:
    """No section fails for want of data, and no number is made up."""
    model = ConsoleModel()
    found = section(model, name, "nobody")
    assert model.services == {}
    if name is Section.SERVICE:
        assert not found["known"]
        assert found["standing"]["title"] == "No data yet"


def test_the_gain_is_relative_to_the_rules(shop: Staged) -> None:
    """The gate's value over the mean rules score, with its bounds (M31, M58)."""
    found = section(model_of(shop), Section.GATES)["before_after"]
    assert found["verdict"] == "successful"
    assert found["lower"] < found["gain"] < found["upper"]
    assert found["gain"] == pytest.approx(0.052 / 0.6, abs=0.02)
    assert found["gain"] == pytest.approx(found["score"] / found["rules_score"] - 1, abs=0.02)
    assert found["lower"] > found["wanted"] == 0.02


def test_without_a_gate_on_the_gain_there_is_no_gain() -> None:
    """A comparison with the control arm is another thing."""
    against_control = msgspec.structs.replace(
        sample(GateReport), role="promotion", metric="score", objective=">= -5%", limit=0.57
    )
    assert before_after(ServiceView(service="shop"), [against_control]) is None


def test_a_quantile_is_shown_as_the_share_that_it_is(shop: Staged) -> None:
    """Its value is no duration: it is the share of prompts beyond the limit."""
    gates = {g["gate"]: g for g in section(model_of(shop), Section.GATES)["gates"]}
    units = {name: gate["unit"] for name, gate in gates.items()}
    assert units["latency-p95"] == "share above"
    assert units["latency-vs-control"] == "seconds"
    assert units["semantic-errors"] == units["sample-ratio"] == "rate"
    assert units["crashes"] == "count"
    assert units["memory"] == "MB"
    assert units["score-vs-control"] == "score"


def test_gates_of_a_rollout_that_is_over_stay_as_they_stood() -> None:
    """After a rollback the gate that caused it is still there, with its numbers."""
    story = Staged("shop", now_ms=T0_MS)
    story.rolled_out(3.2, staged_policy(20.0))
    story.go_on(60, error_rate=0.5)
    found = section(model_of(story), Section.GATES)
    assert found["over"]
    assert {g["gate"] for g in found["gates"] if g["verdict"] == "failed"} == {"semantic-errors"}


def test_an_arm_without_prompts_is_not_shown_with_old_numbers() -> None:
    """Once everybody is back on blue, green's last window disappears."""
    story = Staged("shop", now_ms=T0_MS)
    story.rolled_out(3.2, staged_policy(20.0))
    assert section(model_of(story), Section.WINDOWS)["arms"]["candidate"] is not None
    story.go_on(60, error_rate=0.5)
    story.go_on(180)
    arms = section(model_of(story), Section.WINDOWS)["arms"]
    assert arms["control"]["prompts"] > 0
    assert arms["candidate"] is None


def test_a_long_prompt_is_cut(shop: Staged) -> None:
    """The page gets no more of a prompt than somebody reads."""
    model = model_of(shop)
    model.take(shop.case("x" * 4000), T0_MS)
    model.take(shop.case("short"), T0_MS)
    cases = section(model, Section.CASES)["cases"]
    assert [(len(c["prompt"]), c["prompt_truncated"]) for c in cases] == [(5, False), (2000, True)]


def test_workers_are_shown_with_their_state(shop: Staged) -> None:
    """Live or silent, behind or not, with what they cost (M55)."""
    model = model_of(shop)
    now = section(model, Section.WORKERS, now_ms=shop.now_ms)
    assert [w["worker"] for w in now["workers"]] == ["w1", "w2"]
    assert all(w["live"] and not w["behind"] for w in now["workers"])
    assert now["capacity"]["live"] == 2
    later = section(model, Section.WORKERS, now_ms=shop.now_ms + 60_000)
    assert not any(w["live"] for w in later["workers"])
    assert "start `driftgate analyzer`" in later["capacity"]["advice"][0]


def test_every_service_has_its_verdict(shop: Staged) -> None:
    """What is wrong elsewhere can be seen from here."""
    model = model_of(shop)
    other = Staged("search", now_ms=T0_MS)
    other.rolled_out(3)
    for output in other.outputs:
        model.take(output.event, output.at_ms)
    found = services_view(model, shop.now_ms)
    assert [(s["service"], s["title"]) for s in found] == [
        ("search", "Not watched"), ("shop", "Rolling out"),
    ]  # fmt: skip


def test_decisions_are_pushed_newest_first_and_without_bulk(shop: Staged) -> None:
    """A decision carries its reason; the reports of all gates are not sent again with it."""
    found = section(model_of(shop), Section.DECISIONS)["decisions"]
    assert [d["type"] for d in found] == ["rollout.advanced", "rollout.advanced", "rollout.started"]
    assert all("gates" not in d and d["reason"] for d in found)


def test_detectors_are_shown_with_their_readings(shop: Staged) -> None:
    """How near each detector is to its alarm, and which features are drifting (M56, M57)."""
    reading = DriftReading(
        feature=DriftFeature.RELEVANCE, detector=DriftDetector.PAGE_HINKLEY, statistic=61.2,
        threshold=48.5, drifting=True,
    )  # fmt: skip
    model = model_of(shop)
    for output in (shop.read(reading), shop.drifted()):
        model.take(output.event, output.at_ms)
    found = section(model, Section.GATES)
    assert [(d["feature"], d["statistic"], d["drifting"]) for d in found["drift"]] == [
        ("relevance", 61.2, True)
    ]
    assert [e["type"] for e in found["episodes"]] == ["drift.detected"]
