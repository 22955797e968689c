"""From somebody's thumbs down to everybody back on blue: monitor, curator and topics are real."""

from __future__ import annotations

import asyncio

import msgspec

from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import RolloutRolledBack, WindowMetrics
from schemas.feedback import Attribution
from schemas.log import Command
from schemas.policy import Policy
from schemas.prompts import Arm
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.curating import enriched, give, serve
from tests.support.folding import gate
from tests.support.monitoring import QUICK, Traffic, as_undisturbed, ask
from tests.support.processes import Launch
from tests.support.workers import until

SERVICE = "shop"
POLICY: Policy = msgspec.structs.replace(
    QUICK, gates=[*QUICK.gates, gate("satisfaction", min_samples=50), gate("accuracy")]
)


def test_negative_feedback_rolls_back(kafka: KafkaSettings, launch: Launch) -> None:
    """M77: users of green are unhappy with it; M59: windows show what people said."""
    launch("monitor", kafka=kafka)
    launch("curator", kafka=kafka)
    asyncio.run(story(kafka))
    everything = asyncio.run(as_undisturbed(kafka))
    (rolled_back,) = [
        event
        for one in everything
        if one.topic is Topic.CONTROL
        and isinstance(
            event := cloudevents.decode_json(one.value, cloudevents.CONTROL_EVENT),
            RolloutRolledBack,
        )
    ]
    assert rolled_back.gate is not None
    assert rolled_back.gate.gate == "satisfaction"
    assert rolled_back.gate.samples >= 50
    assert "satisfaction mean >= -10% of control: failed" in rolled_back.reason


async def story(kafka: KafkaSettings) -> None:
    # So that the service is known to have results.
    await serve(kafka, [enriched(1, service=SERVICE)])
    async with Traffic(kafka, SERVICE).flowing() as traffic:
        await ask(kafka, Command.START, SERVICE, policy=POLICY)
        await traffic.until_stage(2)
        for turn in range(1000):
            if traffic.state is not None and traffic.state.phase is Phase.ROLLED_BACK:
                break
            await give(kafka, [said(traffic, turn * 20 + n) for n in range(20)])
            await asyncio.sleep(0.05)
        await traffic.until_phase(Phase.ROLLED_BACK)
    await until("a window with both kinds of feedback", lambda: shown(kafka))


def said(traffic: Traffic, number: int) -> dict[str, object]:
    """Everybody likes blue; every second user dislikes green. Experts find both as good."""
    assert traffic.state is not None
    candidate = number % 2 == 1
    liked = not candidate or number % 4 == 1
    expert = number % 10 == 0
    attribution = Attribution(
        service=SERVICE,
        arm=Arm.CANDIDATE if candidate else Arm.CONTROL,
        deployment="semantic" if candidate else "baseline",
        rollout_id=traffic.state.rollout_id,
        rollout_revision=traffic.state.revision,
    )
    return {
        "event_id": f"prompts/0/{number}",
        "kind": "expert_label" if expert else "user_rating",
        "value": 1.0 if expert else float(liked),
        "attribution": attribution,
    }


async def shown(kafka: KafkaSettings) -> bool:
    """Whether a window has said how satisfied people are, and how right the analysis is."""
    kind = cloudevents.EVENT_TYPES[WindowMetrics]
    windows = [
        cloudevents.decode_json(record.value, WindowMetrics)
        for record in await read_all(kafka, Topic.METRICS, committed_only=False)
        if cloudevents.attributes(record.headers)["type"] == kind
    ]
    green = [w for w in windows if w.arm == "candidate" and w.segment == "all"]
    blue = [w for w in windows if w.arm == "control" and w.segment == "all"]
    return any(
        w.satisfaction_samples and 0.3 < (w.satisfaction_mean or 0) < 0.7 for w in green
    ) and any(w.accuracy_samples and w.accuracy_mean == w.satisfaction_mean == 1.0 for w in blue)
