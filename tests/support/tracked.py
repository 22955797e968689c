"""Events as a tracker reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from schemas import cloudevents
from schemas.control import (
    GateReport,
    LogPosition,
    RolloutPromoted,
    RolloutRolledBack,
    RolloutStarted,
    Verdict,
    WindowMetrics,
)
from schemas.feedback import CaseReason, CuratedCase, FeedbackGiven, FeedbackKind
from schemas.policy import GateRole, Policy, default_policy
from schemas.prompts import (
    Arm,
    Assignment,
    FallbackReason,
    Path,
    PromptEnriched,
    PromptRejected,
    RejectionCode,
    RuleScores,
    SemanticScores,
    SourcePosition,
    Timings,
)
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic
from tests.support.samples import sample

__all__ = [
    "MADE_MS",
    "ROLLOUT",
    "FakeRecord",
    "case",
    "enriched",
    "feedback",
    "promoted",
    "publish",
    "record",
    "rejected",
    "report",
    "rolled_back",
    "started",
    "window",
]

MADE_MS = 1_800_000_000_000
ROLLOUT = "r0123456789abcde"
_SCORES = {"structure": 0.5, "clarity": 0.5, "specificity": 0.5, "actionability": 0.5,
           "completeness": 0.5, "overall": 0.5}  # fmt: skip


class FakeRecord(NamedTuple):
    """What aiokafka would give."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def record(
    topic: Topic,
    event: Any,
    offset: int = 0,
    *,
    made_ms: int = MADE_MS,
    published_ms: int = MADE_MS,
) -> FakeRecord:
    """An event as its topic holds it."""
    headers = []
    if not isinstance(event, FeedbackGiven):
        headers = cloudevents.headers(
            event, id=event.id, source="/driftgate/test", subject=event.service, time_ms=made_ms
        )
    value = cloudevents.encode_json(event)
    return FakeRecord(topic.value, 0, offset, published_ms, None, value, headers)


def enriched(offset: int = 0, path: Path = Path.SEMANTIC, **changes: Any) -> PromptEnriched:
    """A result of green, which took 0.15 s from the poll, 0.12 of them in the model."""
    source = SourcePosition("prompts", 0, offset)
    fallback = FallbackReason.TIMEOUT if path is Path.FALLBACK else None
    rules_only = path is Path.RULES
    event = PromptEnriched(
        id=source.event_id(),
        prompt_id=None,
        user_id="user-7",
        service="shop",
        source=source,
        prompt="Explain the moon",
        path=path,
        fallback_reason=fallback,
        assignment=Assignment(
            arm=Arm.CONTROL if rules_only else Arm.CANDIDATE,
            deployment="baseline" if rules_only else "semantic",
            rollout_id=ROLLOUT,
            rollout_revision=3,
        ),
        rules=RuleScores(**_SCORES),
        semantic=msgspec.structs.replace(sample(SemanticScores), cache_hit=True)
        if path is Path.SEMANTIC
        else None,
        score=0.5,
        semantic_weight=0.3 if path is Path.SEMANTIC else 0.0,
        timings=Timings(
            rules_seconds=0.01,
            embed_seconds=0.0 if rules_only else 0.1,
            semantic_seconds=0.0 if rules_only else 0.12,
            processing_seconds=0.01 if rules_only else 0.15,
            queue_seconds=0.5,
            wait_seconds=0.0 if rules_only else 0.02,
            batch_seconds=0.15,
        ),
        worker_id="w1",
    )
    return msgspec.structs.replace(event, **changes)


def rejected(offset: int = 0, code: RejectionCode = RejectionCode.EMPTY) -> PromptRejected:
    """A dead letter."""
    source = SourcePosition("prompts", 0, offset)
    return PromptRejected(
        id=source.event_id(),
        service="shop",
        source=source,
        code=code,
        reason="nothing to be seen",
        payload=b'{"prompt": "\xff"}',
        payload_bytes=15,
        payload_truncated=False,
        worker_id="w1",
    )


def case(offset: int = 0, *reasons: CaseReason) -> CuratedCase:
    """A case of the result with that offset."""
    return CuratedCase(
        id=f"prompts/0/{offset}",
        service="shop",
        reasons=list(reasons) or [CaseReason.LOW_RELEVANCE],
        prompt="Explain [email]",
        prompt_truncated=False,
        redacted=["email"],
        arm=Arm.CANDIDATE,
        deployment="semantic",
        rollout_id=ROLLOUT,
        rollout_revision=3,
        segment="rest",
        path=Path.SEMANTIC,
        fallback_reason=None,
        score=0.4,
        rules_score=0.5,
        curated_ms=MADE_MS + 60_000,
    )


def feedback(
    offset: int = 0, value: float = 1.0, kind: FeedbackKind = FeedbackKind.USER_RATING
) -> FeedbackGiven:
    """Feedback on the result with that offset."""
    return FeedbackGiven(
        event_id=f"prompts/0/{offset}", kind=kind, value=value, actor="ann", comment="helpful"
    )


def report(gate: str = "coherence", verdict: Verdict = Verdict.FAILED) -> GateReport:
    """A gate's report."""
    return GateReport(
        gate=gate,
        role=GateRole.GUARDRAIL,
        metric="coherence",
        objective=">= 0.7",
        verdict=verdict,
        reason="coherence is 0.5",
        samples=300,
        value=0.5,
        limit=0.7,
        lower=0.45,
        upper=float("inf"),
    )


def _decision(revision: int, at_ms: int) -> dict[str, Any]:
    return {
        "id": f"decision-{revision}",
        "service": "shop",
        "rollout_id": ROLLOUT,
        "revision": revision,
        "stage": 0,
        "share": 0.0,
        "at_ms": at_ms,
        "cause": LogPosition(0, revision),
        "policy_hash": "0123456789abcdef",
        "code_version": "0.1.0",
        "libraries": "numpy 2.4.0",
    }


def started(at_ms: int = MADE_MS, policy: Policy | None = None) -> RolloutStarted:
    """A rollout begins."""
    policy = policy or default_policy()
    blue, green = policy.deployment(policy.blue), policy.deployment(policy.green)
    assert blue is not None
    assert green is not None
    return RolloutStarted(
        **_decision(1, at_ms),
        actor="ann",
        reason="release 2.4",
        blue=policy.blue,
        green=policy.green,
        deployments=[blue, green],
        policy=policy,
    )


def promoted(at_ms: int = MADE_MS + 60_000) -> RolloutPromoted:
    """Green is blue now."""
    return RolloutPromoted(
        **_decision(4, at_ms),
        actor="driftgate",
        reason="all gates hold",
        blue="semantic",
        gates=[report(verdict=Verdict.SUCCESSFUL)],
    )


def rolled_back(at_ms: int = MADE_MS + 60_000, actor: str = "driftgate") -> RolloutRolledBack:
    """Everybody is back on blue."""
    return RolloutRolledBack(
        **_decision(5, at_ms),
        actor=actor,
        reason="coherence is 0.5",
        gate=report() if actor == "driftgate" else None,
    )


def window(number: int = 0, **changes: Any) -> WindowMetrics:
    """A final window of 10 s of the candidate."""
    found = WindowMetrics(
        id=f"window-{number}",
        service="shop",
        rollout_id=ROLLOUT,
        stage=1,
        share=0.25,
        start_ms=MADE_MS + 10_000 * number,
        end_ms=MADE_MS + 10_000 * (number + 1),
        arm="candidate",
        segment="all",
        final=True,
        prompts=100,
        rejected=2,
        system_errors=0,
        semantic_prompts=76,
        semantic_errors=4,
        cache_lookups=0,
        cache_hits=0,
        processing_seconds_mean=0.1,
        processing_seconds_p50=0.1,
        processing_seconds_p95=0.2,
        processing_seconds_p99=0.3,
        rules_score_mean=0.5,
        score_mean=0.55,
        coherence_mean=0.8,
        relevance_mean=None,
    )
    return msgspec.structs.replace(found, **changes)


async def publish(kafka: KafkaSettings, records: Iterable[tuple[Topic, Any]]) -> None:
    """Write events to their topics, as whoever writes them does; bytes as they are."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True, linger_ms=5
    ) as producer:
        futures = []
        for number, (topic, event) in enumerate(records):
            raw = isinstance(event, bytes)
            made = FakeRecord("", 0, 0, 0, None, event, []) if raw else record(topic, event)
            # Services are in one partition each; prompts in all of them.
            spread = next(spec.spread for spec in TOPICS if spec.topic is topic)
            futures.append(
                await producer.send(
                    kafka.topic(topic),
                    made.value,
                    # A compacted topic takes nothing without one.
                    key=str(getattr(event, "id", number)).encode(),
                    partition=number % kafka.partitions(spread),
                    headers=made.headers,
                )
            )
        await asyncio.gather(*futures)
