"""A staged past for the console: what a monitor would have said of a service's last hour.

It is folded from made-up measurements by the real fold, and published where a monitor publishes.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import numpy as np

from schemas import cloudevents
from schemas.alerting import AlertRule
from schemas.control import (
    AlertEvent,
    AlertSeverity,
    AlertStatus,
    DriftDetected,
    GateStatus,
    LogPosition,
)
from schemas.drift import (
    DriftArm,
    DriftDetector,
    DriftDirection,
    DriftFeature,
    DriftReading,
    DriftRules,
)
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackKind
from schemas.log import (
    COLUMNS,
    CacheLookups,
    Command,
    Heartbeat,
    MeasurementBatch,
    ModelState,
    RowFlag,
    encode_log_record,
)
from schemas.policy import Policy, Stage, Windows, default_policy
from schemas.prompts import Arm, Path
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from schemas.version import VERSION
from streams.console.rows import ScoreCounts
from streams.console.scores import score_counts
from streams.kafka_io import KafkaIO
from streams.libraries import LIBRARIES
from streams.outputs import Output
from tests.support.folding import Story

__all__ = ["HOSTILE", "Staged", "publish", "staged_policy"]

STEP_S = 5.0
RATE = 60
HOSTILE = (
    '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
    "\u202egnp.exe\u202c {{constructor.constructor('window.hacked=1')()}} "
    '"><svg onload=window.hacked=1> javascript:window.hacked=1'
)
"""A prompt that tries what prompts try."""


def staged_policy(stage_s: float = 600.0) -> Policy:
    """The default policy with shorter stages, and a stage at 50 % that does not end by itself."""
    stages = [
        Stage(percent=0.0, shadow_percent=25.0, min_seconds=stage_s),
        Stage(percent=25.0, min_seconds=stage_s),
        Stage(percent=50.0, min_seconds=86_000.0),
        Stage(percent=100.0, min_seconds=900.0),
    ]
    windows = Windows(pane_seconds=5.0, hop_seconds=10.0, window_seconds=60.0)
    gates = [
        msgspec.structs.replace(g, warmup_seconds=0.0, min_samples=min(g.min_samples, 100))
        if g.name != "memory"
        else msgspec.structs.replace(g, warmup_seconds=0.0, min_samples=5)
        for g in default_policy().gates
    ]
    return msgspec.structs.replace(
        default_policy(),
        stages=stages,
        windows=windows,
        gates=gates,
        # What drifts here is told as it is needed, not found.
        drift=DriftRules(enabled=False),
    )


class Staged(Story):
    """A service with two analyzers under steady load.

    Args:
        service: its name.
        now_ms: where its story begins.
        workers: names of its analyzers.
        seed: of its numbers.
    """

    def __init__(
        self, service: str, *, now_ms: int, workers: tuple[str, ...] = ("w1", "w2"), seed: int = 7
    ) -> None:
        super().__init__(service, now_ms=now_ms)
        self.workers = workers
        self.scores: list[ScoreCounts] = []
        self.log: list[tuple[int, bytes]] = []
        """Time and value of every record of the log, for the worker curves."""
        self._rng = np.random.default_rng(seed)
        self._began_ms = now_ms
        self._offsets = 0
        self._curated = 0

    def go_on(self, seconds: float, **health: Any) -> list[Output]:
        """Let time pass under load.

        Args:
            seconds: so long.
            health: of the candidate's rows: ``error_rate``, ``slower``, ``relevance``.
        """
        found: list[Output] = []
        for _ in range(max(1, round(seconds / STEP_S))):
            self.after(STEP_S)
            for number, worker in enumerate(self.workers):
                found += self._say(self._beat(worker, number))
            found += self._say(self._batch(round(RATE * STEP_S), **health))
        return found

    def _say(self, record: Heartbeat | MeasurementBatch) -> list[Output]:
        self.log.append((self.now_ms, encode_log_record(record)))
        return self.record(record)

    def _beat(self, worker: str, number: int) -> Heartbeat:
        past_s = (self.now_ms - self._began_ms) / 1000
        wave = math.sin(past_s / 300 + number)
        hits = round(past_s * RATE / 2 * 0.78)
        return Heartbeat(
            service=self.state.service,
            worker_id=worker,
            incarnation=f"{worker}/1",
            version=VERSION,
            applied_revision=self.state.rollout.revision,
            interval_ms=round(STEP_S * 1000),
            model=ModelState.READY,
            encoder="openvino bf16",
            rss_bytes=int(2**20 * (412 + 9 * number + 4 * wave + past_s / 400)),
            cpu_seconds=past_s * (0.36 + 0.04 * number),
            lag_messages=max(0, int(6 + 9 * wave)),
            cache_entries=8_400 + 60 * number,
            cache_hits=hits,
            cache_misses=round(past_s * RATE / 2 * 0.22),
            cache_candidate=CacheLookups(hits=hits, misses=round(past_s * RATE / 2 * 0.22)),
            prompts=round(past_s * RATE / len(self.workers)),
        )

    def _batch(
        self, rows: int, *, error_rate: float = 0.0, slower: float = 1.0, relevance: float = 0.0
    ) -> MeasurementBatch:
        rng, rollout = self._rng, self.state.rollout
        share = rollout.share or rollout.shadow_share
        candidate = rng.random(rows) < share if rollout.splits else np.zeros(rows, bool)
        failed = candidate & (rng.random(rows) < error_rate)
        semantic = candidate & ~failed
        hit = semantic & (rng.random(rows) < 0.78)
        flags = np.where(candidate, RowFlag.CANDIDATE, 0)
        flags |= np.where(semantic, RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP, 0)
        flags |= np.where(hit, RowFlag.CACHE_HIT, 0) | np.where(failed, RowFlag.FALLBACK, 0)
        if rollout.share == 0:
            flags |= np.where(candidate, RowFlag.SHADOW, 0)
        flags = np.where(rng.random(rows) < 0.004, RowFlag.REJECTED, flags)
        wave = 1 + 0.15 * math.sin(self.now_ms / 240_000)
        embed = np.where(hit, 0.0004, rng.lognormal(-3.9, 0.35, rows) * wave * slower)
        rules = rng.beta(12, 8, rows)
        gain = rng.normal(0.052, 0.035, rows)
        columns = {
            "partition": 0,
            "offset": np.arange(self._offsets, self._offsets + rows),
            "flags": flags,
            "segment": 0,
            "processing_seconds": np.where(semantic, embed + 0.004, rng.lognormal(-7, 0.4, rows)),
            "embed_seconds": np.where(semantic, embed, 0),
            "rules_score": rules,
            "score": np.clip(np.where(semantic, rules + gain, rules), 0, 1),
            "coherence": np.where(semantic, np.clip(rng.beta(17, 4, rows), 0, 1), 0),
            "relevance": np.where(semantic, np.clip(rng.beta(12, 4, rows) + relevance, 0, 1), 0),
            "centroid_distance": rng.random(rows),
            "prompt_chars": rng.integers(20, 400, rows),
            "bucket": _buckets(rng, candidate, share, rows),
        }
        self._offsets += rows
        batch = _measurement(
            columns, rows, self.state.service, rollout.revision, rollout.rollout_id
        )
        self.scores += score_counts(batch.rows(), service=self.state.service, at_ms=self.now_ms)
        return batch

    def drifted(self, feature: DriftFeature = DriftFeature.RELEVANCE) -> Output:
        """What a drift detector would say now."""
        state, cause = self.state, LogPosition(self.partition, len(self.entries) - 1)
        event = DriftDetected(
            id=f"drift-{state.service}-{self.now_ms}",
            service=state.service,
            rollout_id=state.rollout.rollout_id,
            revision=state.rollout.revision,
            stage=state.rollout.stage,
            share=state.rollout.share,
            at_ms=self.now_ms,
            cause=cause,
            reason=f"{feature} has moved down: page_hinkley is 61.2, above 48.5, over 412 rows",
            policy_hash=state.policy.hash,
            code_version=VERSION,
            libraries=LIBRARIES,
            actor="driftgate",
            feature=feature,
            detector=DriftDetector.PAGE_HINKLEY,
            arm=DriftArm.ALL,
            statistic=61.2,
            threshold=48.5,
            direction=DriftDirection.DOWN,
            first_offset=max(0, cause.offset - 40),
            last_offset=cause.offset,
            reference=None,
        )
        return Output(Topic.CONTROL, event, event.id, self.now_ms, cause, event.rollout_id)

    def read(self, *readings: DriftReading) -> Output:
        """The newest status, with readings of drift detectors."""
        last = next(o for o in reversed(self.outputs) if isinstance(o.event, GateStatus))
        status = msgspec.structs.replace(last.event, drift=list(readings))
        return last._replace(event=status, id=f"{last.id}/drift")

    def alerting(
        self,
        rule: AlertRule,
        severity: AlertSeverity,
        summary: str,
        cure: str,
        *,
        ago_s: float,
        **details: Any,
    ) -> Output:
        """An alert that began some time ago."""
        cause = LogPosition(self.partition, len(self.entries) - 1)
        event = AlertEvent(
            id=f"alert-{rule}-{self.now_ms}",
            key=f"{rule}/{self.state.service}",
            rule=rule,
            service=self.state.service,
            severity=severity,
            summary=summary,
            cure=cure,
            since_ms=self.now_ms - round(ago_s * 1000),
            at_ms=self.now_ms,
            cause=cause,
            **{"status": AlertStatus.FIRING, **details},
        )
        return Output(Topic.ALERTS, event, event.id, self.now_ms, cause, None)

    def case(self, prompt: str, *reasons: CaseReason, **details: Any) -> CuratedCase:
        """A prompt worth a look."""
        self._curated += 1
        return CuratedCase(
            **{
                "id": f"prompts/0/{self._curated}",
                "service": self.state.service,
                "reasons": list(reasons) or [CaseReason.LOW_RELEVANCE],
                "prompt": prompt,
                "prompt_truncated": False,
                "arm": Arm.CANDIDATE,
                "deployment": "semantic",
                "rollout_id": self.state.rollout.rollout_id,
                "rollout_revision": self.state.rollout.revision,
                "segment": "rest",
                "path": Path.SEMANTIC,
                "fallback_reason": None,
                "score": 0.41,
                "rules_score": 0.66,
                "semantic_score": 0.2,
                "relevance": 0.21,
                "coherence": 0.55,
                "domain": "data-analysis",
                "curated_ms": self.now_ms,
                **details,
            }
        )

    def rated(self, prompt: str, comment: str) -> CuratedCase:
        """A prompt that somebody was not content with."""
        feedback = CaseFeedback(kind=FeedbackKind.USER_RATING, value=0.0, comment=comment)
        return self.case(prompt, CaseReason.NEGATIVE_FEEDBACK, feedback=feedback)

    def rolled_out(self, minutes: float, policy: Policy | None = None) -> list[Output]:
        """Two idle minutes, then a healthy rollout."""
        found = self.go_on(120)
        found += self.command(
            Command.START,
            policy=policy or staged_policy(),
            reason="release 2.4 of the semantic analysis",
        )
        return found + self.go_on(minutes * 60 - 120)


def _buckets(rng: np.random.Generator, candidate: Any, share: float, rows: int) -> Any:
    edge = max(1, round(share * 10_000))
    if not candidate.any():
        return np.full(rows, 65_535)
    return np.where(
        candidate, rng.integers(0, edge, rows), rng.integers(min(edge, 9_999), 10_000, rows)
    )


def _measurement(
    columns: dict[str, Any], rows: int, service: str, revision: int, rollout_id: str | None
) -> MeasurementBatch:
    return MeasurementBatch(
        service=service,
        worker_id="w1",
        incarnation="w1/1",
        revision=revision,
        rollout_id=rollout_id,
        source_topic="prompts",
        segments=["rest"],
        **{
            name: np.broadcast_to(np.asarray(columns[name]), (rows,)).astype(dtype).tobytes()
            for name, dtype in COLUMNS.items()
        },
    )


async def publish(
    kafka: KafkaSettings,
    outputs: list[Output],
    cases: list[CuratedCase] | None = None,
    log: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Put everything where it would stand."""
    io = KafkaIO(kafka)
    try:
        await io.publish(outputs, 0)
        futures = [
            await io.send(
                kafka.topic(Topic.CURATED), 0, case.id.encode(), cloudevents.encode_json(case)
            )
            for case in cases or []
        ]
        futures += [await io.send(kafka.topic(Topic.LOG), 0, k, v) for k, v in log or []]
        await asyncio.gather(*futures)
    finally:
        await io.stop()
