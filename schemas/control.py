"""What the monitor says: `driftgate.control`, `driftgate.metrics` and `driftgate.alerts`.

A control event's ``id`` is derived from what it was decided on, so a repetition carries the same id
and can be dropped by it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.drift import DriftArm, DriftDetector, DriftDirection, DriftFeature, DriftReading
from schemas.policy import GateRole, Policy
from schemas.preflight import PreflightResult
from schemas.rollout import Deployment, Mode, Phase

__all__ = [
    "AlertEvent",
    "AlertSeverity",
    "AlertStatus",
    "AlertUndelivered",
    "CommandRejected",
    "ControlEvent",
    "Decision",
    "DriftCleared",
    "DriftDetected",
    "GateBreached",
    "GateRecovered",
    "GateReport",
    "GateStatus",
    "LogPosition",
    "RollbackConfirmed",
    "RolloutAdvanced",
    "RolloutPaused",
    "RolloutPromoted",
    "RolloutResumed",
    "RolloutRolledBack",
    "RolloutStarted",
    "Verdict",
    "WindowMetrics",
]


class Verdict(StrEnum):
    """What a gate says, from best to worst."""

    SUCCESSFUL = "successful"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    FAILED = "failed"


class LogPosition(msgspec.Struct, frozen=True):
    """The record of `driftgate.log` that a decision was made on."""

    partition: int
    offset: int


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's verdict with the numbers behind it."""

    gate: str
    role: GateRole
    metric: str
    objective: str
    statistic: Annotated[
        str, Meta(description="Of the metric; for a quantile the share beyond is tested.")
    ] = ""
    against: Annotated[
        str | None, Meta(description="What a relative objective is held against.")
    ] = None
    verdict: Verdict
    reason: str
    samples: Annotated[int, Meta(ge=0, description="Rows of the candidate arm.")]
    control_samples: Annotated[int, Meta(ge=0)] = 0
    value: Annotated[
        float | None,
        Meta(
            description="What is tested, of the candidate: the mean or rate; for a quantile gate "
            "the share of rows beyond its limit."
        ),
    ] = None
    limit: Annotated[float | None, Meta(description="What it is held against.")] = None
    lower: Annotated[float | None, Meta(description="Lower confidence bound of the value.")] = None
    upper: Annotated[float | None, Meta(description="Upper confidence bound of the value.")] = None
    evidence: Annotated[
        float | None,
        Meta(description="Log e-value: of the good side if successful, else of a breach."),
    ] = None
    boundary: Annotated[
        float | None, Meta(description="What the evidence must reach to certify: -log alpha.")
    ] = None
    dry_run: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What every control event carries."""

    id: Annotated[str, Meta(description="Derived from what was decided on.")]
    service: str
    rollout_id: str | None
    revision: Annotated[int, Meta(ge=0, description="Rollout revision after the decision.")]
    stage: Annotated[int, Meta(ge=0)]
    share: Annotated[float, Meta(ge=0.0, le=1.0, description="Users served by green after it.")]
    at_ms: Annotated[int, Meta(ge=0, description="Log time, ms since the epoch.")]
    cause: LogPosition
    reason: str
    policy_hash: str
    code_version: str
    libraries: Annotated[
        str, Meta(description="What the numbers were computed with: name and version of each.")
    ]
    actor: Annotated[str, Meta(description="Who decided: `driftgate` or an operator (M30).")]
    command_id: Annotated[
        str | None, Meta(description="The operator command that it answers, if any.")
    ] = None


class GateBreached(Decision, frozen=True, kw_only=True, tag_field="type", tag="gate.breached"):
    """A gate is certified to be broken."""

    gate: GateReport


class GateRecovered(Decision, frozen=True, kw_only=True, tag_field="type", tag="gate.recovered"):
    """A gate that was broken holds again."""

    gate: GateReport


class RolloutStarted(Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.started"):
    """Green is computed in shadow from now on."""

    blue: str
    green: str
    mode: Mode = Mode.ROLLOUT
    shares: Annotated[
        list[float], Meta(description="Users served by green in each stage that is planned.")
    ] = []
    preflight: Annotated[
        list[PreflightResult], Meta(description="What was looked at before; see `rollout start`.")
    ] = []
    rehearsal: Annotated[bool, Meta(description="It never leaves its shadow stage.")] = False
    deployments: Annotated[list[Deployment], Meta(description="Blue, then green.")] = []
    policy: Annotated[Policy | None, Meta(description="What it is judged by.")] = None


class RolloutAdvanced(
    Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.advanced"
):
    """The next stage begins."""

    gates: list[GateReport]


class RolloutPaused(Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.paused"):
    """The share stays where it is until somebody resumes."""

    gate: GateReport | None = None


class RolloutResumed(Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.resumed"):
    """The stage goes on, with fresh evidence."""


class RolloutPromoted(
    Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.promoted"
):
    """Green is blue now."""

    blue: str
    gates: list[GateReport]


class RolloutRolledBack(
    Decision, frozen=True, kw_only=True, tag_field="type", tag="rollout.rolled_back"
):
    """All users are back on blue; finished when `rollback.confirmed` follows."""

    gate: GateReport | None = None
    workers: Annotated[list[str], Meta(description="Live workers that must apply it.")] = []


class RollbackConfirmed(
    Decision, frozen=True, kw_only=True, tag_field="type", tag="rollback.confirmed"
):
    """Every live worker has applied the rollback."""

    workers: list[str]
    confirmed_ms: Annotated[int, Meta(ge=0, description="Log time since the rollback.")]


class _Drift(Decision, frozen=True, kw_only=True):
    feature: DriftFeature
    detector: Annotated[DriftDetector, Meta(description="That raised the alarm.")]
    arm: Annotated[DriftArm, Meta(description="Whose rows are watched.")]
    statistic: float
    threshold: Annotated[float, Meta(description="Drift is above, quiet is below.")]
    direction: DriftDirection
    first_offset: Annotated[int, Meta(ge=0, description="Of the log: where the evidence begins.")]
    last_offset: Annotated[int, Meta(ge=0, description="Of the log: where it ends.")]
    reference: Annotated[
        str | None, Meta(description="Id of the reference; null: the first rows of the service.")
    ]


class DriftDetected(_Drift, frozen=True, kw_only=True, tag_field="type", tag="drift.detected"):
    """A feature has moved away from its reference; said once an episode (M41, M56, M57)."""


class DriftCleared(_Drift, frozen=True, kw_only=True, tag_field="type", tag="drift.cleared"):
    """A feature is as in its reference again: the episode that began at first_offset is over."""


class CommandRejected(
    Decision, frozen=True, kw_only=True, tag_field="type", tag="command.rejected"
):
    """An operator command that cannot be done now, and why."""


ControlEvent = (
    GateBreached
    | GateRecovered
    | RolloutStarted
    | RolloutAdvanced
    | RolloutPaused
    | RolloutResumed
    | RolloutPromoted
    | RolloutRolledBack
    | RollbackConfirmed
    | DriftDetected
    | DriftCleared
    | CommandRejected
)


class WindowMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one window of log time for one arm and segment (M2).

    Provisional while it fills (``final`` false, replaced by later ones with the same window, arm
    and segment), final once. A mean or quantile without rows is null.
    """

    id: str
    service: str
    rollout_id: str | None
    stage: Annotated[int, Meta(ge=0)]
    share: Annotated[float, Meta(ge=0.0, le=1.0)]
    start_ms: Annotated[int, Meta(ge=0)]
    end_ms: Annotated[int, Meta(ge=0)]
    arm: Annotated[str, Meta(pattern="^(control|candidate)$")]
    segment: str
    final: bool
    prompts: Annotated[int, Meta(ge=0, description="Accepted prompts.")]
    rejected: Annotated[int, Meta(ge=0, description="Counted on the control arm.")]
    system_errors: Annotated[int, Meta(ge=0)]
    semantic_prompts: Annotated[int, Meta(ge=0)]
    semantic_errors: Annotated[int, Meta(ge=0)]
    cache_lookups: Annotated[int, Meta(ge=0)]
    cache_hits: Annotated[int, Meta(ge=0)]
    processing_seconds_mean: float | None
    processing_seconds_p50: float | None
    processing_seconds_p95: float | None
    processing_seconds_p99: float | None
    rules_score_mean: float | None
    score_mean: float | None
    coherence_mean: float | None
    relevance_mean: float | None
    satisfaction_samples: Annotated[
        int, Meta(ge=0, description="User ratings that came in this window, of any age.")
    ] = 0
    satisfaction_mean: float | None = None
    accuracy_samples: Annotated[
        int, Meta(ge=0, description="Expert labels and judge scores that came in this window.")
    ] = 0
    accuracy_mean: float | None = None


class GateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a service stands when a pane closes.

    Its gates while a rollout is active, or watched after its promotion; else none.
    """

    id: str
    service: str
    rollout_id: str | None
    revision: Annotated[int, Meta(ge=0)]
    stage: Annotated[int, Meta(ge=0)]
    share: Annotated[float, Meta(ge=0.0, le=1.0)]
    stage_seconds: Annotated[float, Meta(ge=0.0, description="Log time in this stage.")]
    at_ms: Annotated[int, Meta(ge=0)]
    measured: Annotated[int, Meta(ge=0, description="Rows counted since the service is known.")]
    live_workers: list[str]
    gates: list[GateReport]
    phase: Phase = Phase.IDLE
    fenced_workers: Annotated[
        list[str], Meta(description="Live, but too far behind: their measurements do not count.")
    ] = []
    refused: Annotated[
        int, Meta(ge=0, description="Records of the log that could not be used, ever.")
    ] = 0
    drift: Annotated[
        list[DriftReading], Meta(description="Every detector that has something to watch.")
    ] = []


class AlertStatus(StrEnum):
    """Where an alert stands."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    """Somebody looks after it: it is not escalated any more."""
    ESCALATED = "escalated"
    """Nobody acknowledged it in time."""
    RESOLVED = "resolved"


class AlertSeverity(StrEnum):
    """How urgent it is."""

    WARNING = "warning"
    CRITICAL = "critical"


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person must know (M63)."""

    id: str
    key: Annotated[str, Meta(description="`rule/service[/subject]`: the same in every status.")]
    rule: Annotated[str, Meta(description="What raised it, see `alerts` in the policy.")]
    service: str
    status: AlertStatus
    severity: AlertSeverity
    summary: str
    cure: Annotated[str, Meta(description="What to do about it.")]
    since_ms: Annotated[int, Meta(ge=0, description="Log time at which it began to fire.")]
    at_ms: Annotated[int, Meta(ge=0)]
    cause: LogPosition
    actor: Annotated[str | None, Meta(description="Who acknowledged it (M30).")] = None
    escalation: Annotated[
        int, Meta(ge=0, description="How often it was escalated, this time included.")
    ] = 0


class AlertUndelivered(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: an alert that a channel did not take in all of its attempts."""

    id: Annotated[str, Meta(description="Of the alert event, and the channel.")]
    service: str
    channel: Annotated[str, Meta(description="Which; without any secret of its URL.")]
    attempts: Annotated[int, Meta(ge=1)]
    error: Annotated[str, Meta(description="What the last attempt said.")]
    alert: AlertEvent
