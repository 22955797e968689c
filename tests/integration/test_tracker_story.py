"""A rollout of real processes, read back from MLflow (M78–M82)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import RolloutRolledBack, RolloutStarted
from schemas.feedback import FeedbackGiven, FeedbackKind
from schemas.log import Command
from schemas.policy import Policy, Stage, Windows
from schemas.prompts import Arm, PromptEnriched
from schemas.prompts import Path as AnalysisPath
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.folding import gate, policy
from tests.support.mlflow_stores import MLFLOW_WARNINGS, START_S
from tests.support.mlflow_story import aliases_of, read_back
from tests.support.monitoring import ask, until_confirmed
from tests.support.processes import Launch, eventually
from tests.support.topics import prompt, put, submit

pytestmark = MLFLOW_WARNINGS

POLICY: Policy = policy(
    gate("semantic-errors", min_samples=40),
    stages=[
        Stage(percent=50.0, min_seconds=3600.0),
        Stage(percent=100.0, min_seconds=3600.0),
    ],
    windows=Windows(pane_seconds=0.5, hop_seconds=1.0, window_seconds=2.0),
    confirm_seconds=20.0,
)
"""Half of the users at once; the model that is not there makes each of them a fallback."""


@asynccontextmanager
async def prompts_flowing(kafka: KafkaSettings) -> AsyncIterator[None]:
    """Prompts of many users while the block runs."""

    async def flow() -> None:
        number = 0
        while not over.is_set():
            users = range(number, number + 20)
            await submit(kafka, [prompt(f"Explain the moon to a child, {n} times", user_id=f"u-{n}")
                                 for n in users])  # fmt: skip
            number += 20
            await asyncio.sleep(0.2)

    # It ends by itself: cancelled while it sends, it would leave a producer open.
    over = asyncio.Event()
    task = asyncio.create_task(flow())
    try:
        yield
    finally:
        over.set()
        await task


async def events(kafka: KafkaSettings, topic: Topic, kind: Any) -> list[Any]:
    records = await read_all(kafka, topic, committed_only=True)
    return [cloudevents.decode_json(record.value, kind) for record in records]


async def rolled_back(kafka: KafkaSettings) -> RolloutRolledBack:
    """The rollback, under traffic, and confirmed."""
    async with prompts_flowing(kafka):
        await until_confirmed(kafka)
        # A window that began after the rollback and is over.
        await asyncio.sleep(4)
    everything = await events(kafka, Topic.CONTROL, cloudevents.CONTROL_EVENT)
    (found,) = [event for event in everything if isinstance(event, RolloutRolledBack)]
    return found


def some_of(
    results: Sequence[PromptEnriched], arm: Arm, path: AnalysisPath, count: int
) -> list[PromptEnriched]:
    return [e for e in results if e.assignment.arm is arm and e.path is path][:count]


async def rate(kafka: KafkaSettings, event: PromptEnriched, value: float) -> None:
    given = FeedbackGiven(
        event_id=event.id, kind=FeedbackKind.USER_RATING, value=value, actor="ann"
    )
    await put(kafka, Topic.FEEDBACK, event.id.encode(), msgspec.json.encode(given))


def test_a_rollout_is_read_back_from_mlflow(
    kafka: KafkaSettings, launch: Launch, mlflow_uri: str, tmp_path: Path
) -> None:
    """Start, half of the users, the model fails, a gate rolls back, somebody complains."""
    launch("monitor", kafka=kafka)
    launch("analyzer", "--worker-id", "w1", kafka=kafka, DRIFTGATE_MODEL="/nonexistent")
    tracker = launch("tracker", kafka=kafka, DRIFTGATE_MLFLOW_URI=mlflow_uri,
                     DRIFTGATE_TRACE_RATIO="0.5")  # fmt: skip
    tracker.wait_for_log("runs: reading", within_s=START_S)
    begin_ns = time.time_ns()
    answer = asyncio.run(ask(kafka, Command.START, "default", policy=POLICY))
    assert isinstance(answer, RolloutStarted)
    tracker.wait_for_log("champion is version")
    before = aliases_of(mlflow_uri, "default")

    back = asyncio.run(rolled_back(kafka))
    results = asyncio.run(events(kafka, Topic.ENRICHED, PromptEnriched))
    (worst,) = some_of(results, Arm.CANDIDATE, AnalysisPath.FALLBACK, 1)
    (fine,) = some_of(results, Arm.CONTROL, AnalysisPath.RULES, 1)
    asyncio.run(rate(kafka, worst, 0.0))
    asyncio.run(rate(kafka, fine, 1.0))
    tracker.wait_for_log("no green")
    rollout_id = str(back.rollout_id)
    eventually("feedback is in", lambda: len(read_back(mlflow_uri, rollout_id).assessments) == 2)
    end_ns = time.time_ns()
    assert tracker.stop() == 0

    # Aliases: green was the candidate, and is gone.
    assert before == {"blue": "baseline", "champion": "baseline", "green": "semantic"}
    assert aliases_of(mlflow_uri, "default") == {"blue": "baseline", "champion": "baseline"}

    # The run: what it was judged by, and how it ended.
    found = read_back(mlflow_uri, rollout_id)
    info, data = found.run.info, found.run.data
    assert (info.status, info.end_time) == ("FAILED", back.at_ms)
    assert info.start_time == answer.at_ms
    assert data.params["blue"] == "baseline"
    assert data.params["green"] == "semantic"
    assert data.params["policy_hash"] == POLICY.hash
    assert data.params["code_version"] == answer.code_version
    assert data.params["gate.semantic-errors"] == "semantic_error rate <= 0.01 (guardrail)"
    assert data.tags["driftgate.verdict"] == "rolled_back"
    assert data.tags["driftgate.gate"] == "semantic-errors"
    assert data.tags["driftgate.reason"] == back.reason
    assert data.tags["driftgate.confirmed_by"] == "w1"
    assert found.artifacts == ["deployments", "policy.yaml"]

    # Metrics: of windows, at their ends; and of the gate that broke.
    assert data.metrics["gate/semantic-errors/broken"] == 1.0
    assert data.metrics["rollout/share"] == 0.0
    assert data.metrics["rollback/confirmed_seconds"] >= 0.0
    for name in ("prompts", "processing_seconds_p95", "semantic_error_rate"):
        assert f"candidate/{name}" in data.metrics
    assert data.metrics["control/rules_score_mean"] > 0.0

    # Traces: of both arms, at their real times; every fallback is there, of the rest about half.
    of_rollout = [e for e in results if e.assignment.rollout_id == rollout_id]
    fallbacks = {e.id for e in of_rollout if e.path is AnalysisPath.FALLBACK}
    assert found.kept["fallback"] == len(fallbacks) >= 40
    assert 0 < found.kept["sampled"] < len(of_rollout) - len(fallbacks)
    by_event = {t.info.tags["driftgate.event_id"]: t for t in found.traces}
    assert len(by_event) == len(found.traces)
    assert fallbacks <= by_event.keys()
    for trace in found.traces:
        spans = {span.name: span for span in trace.data.spans}
        root = spans["prompt"]
        assert begin_ns < root.start_time_ns <= root.end_time_ns < end_ns
        assert all(
            root.start_time_ns <= s.start_time_ns <= s.end_time_ns <= root.end_time_ns
            for s in spans.values()
        )
        assert spans["validate"].start_time_ns == root.start_time_ns
        assert spans["publish"].end_time_ns == root.end_time_ns
    failed = by_event[worst.id].data.spans
    assert [s.name for s in failed if s.status.status_code.value == "ERROR"] == ["embed"]

    # Feedback: on the traces of what it is about.
    said = {t.info.tags["driftgate.event_id"]: [a.value for a in t.info.assessments]
            for t in found.traces if t.info.assessments}  # fmt: skip
    assert said == {worst.id: [0.0], fine.id: [1.0]}
    document = next(iter((tmp_path / "mlflow-artifacts").rglob("policy.yaml")))
    assert msgspec.convert(yaml.safe_load(document.read_text("utf-8")), Policy) == POLICY
    assert re.search(r"champion is version \d", tracker.log)
