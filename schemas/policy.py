"""The gate policy: deployments, stages and gates of a service, from YAML to a checked struct."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from schemas.alerting import AlertRules
from schemas.drift import DriftRules
from schemas.errors import PolicyError
from schemas.preflight import PreflightCheck
from schemas.rollout import Deployment, Mode, Segment
from schemas.strict_yaml import load_yaml

__all__ = [
    "Against",
    "Freeze",
    "Gate",
    "GateRole",
    "Metric",
    "Objective",
    "Policy",
    "Stage",
    "Statistic",
    "Windows",
    "default_policy",
    "load_policy",
    "parse_policy",
]

Percent = Annotated[float, Meta(ge=0.0, le=100.0)]

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
"""Every number has an upper limit: JSON has no infinity, so an infinite one would lose its value on
the way to the monitor, and two policies would share a hash."""


class GateRole(StrEnum):
    """What a certified breach of a gate does."""

    GUARDRAIL = "guardrail"
    """Rolls back."""
    SIGNAL = "signal"
    """Pauses."""
    PROMOTION = "promotion"
    """Nothing; but it must be certified to hold before the rollout advances."""


class Metric(StrEnum):
    """What a gate measures: a number for each prompt of the candidate arm, or of the analyzers."""

    PROCESSING_SECONDS = "processing_seconds"
    SYSTEM_ERROR = "system_error"
    SEMANTIC_ERROR = "semantic_error"
    ERROR = "error"
    CACHE_HIT = "cache_hit"
    COHERENCE = "coherence"
    RELEVANCE = "relevance"
    SCORE = "score"
    SATISFACTION = "satisfaction"
    ACCURACY = "accuracy"
    WORKER_CRASHES = "worker_crashes"
    """Analyzers that were lost or started again without having said goodbye, in the stage."""
    MODEL_UNAVAILABLE_SECONDS = "model_unavailable_seconds"
    """How long a live analyzer has had no model."""
    MEMORY_GROWTH_MB = "memory_growth_mb"
    """What the resident memory of an analyzer has risen by in the stage, along a robust line."""

    @property
    def is_rate(self) -> bool:
        """Whether each prompt contributes 0 or 1."""
        return self in _RATES

    @property
    def is_feedback(self) -> bool:
        """Whether it is about what people said of a result, and not measured with it."""
        return self in _FEEDBACK

    @property
    def is_health(self) -> bool:
        """Whether it is about the analyzers, by their heartbeats, and not about prompts."""
        return self in _HEALTH

    @property
    def is_of_prompts(self) -> bool:
        """Whether each measured prompt has it."""
        return self not in _FEEDBACK and self not in _HEALTH


_RATES = frozenset({Metric.SYSTEM_ERROR, Metric.SEMANTIC_ERROR, Metric.ERROR, Metric.CACHE_HIT})
_FEEDBACK = frozenset({Metric.SATISFACTION, Metric.ACCURACY})
_HEALTH = frozenset(
    {Metric.WORKER_CRASHES, Metric.MODEL_UNAVAILABLE_SECONDS, Metric.MEMORY_GROWTH_MB}
)


class Statistic(StrEnum):
    """How the numbers of an arm become one."""

    MEAN = "mean"
    RATE = "rate"
    P50 = "p50"
    P95 = "p95"
    P99 = "p99"
    COUNT = "count"
    """Over all analyzers."""
    MAX = "max"
    """Of the analyzer that is worst."""

    @property
    def quantile(self) -> float | None:
        """The quantile in (0, 1), or None."""
        return {"p50": 0.5, "p95": 0.95, "p99": 0.99}.get(self.value)


class Against(StrEnum):
    """What a relative objective is relative to."""

    CONTROL = "control"
    """The control arm, in the same time."""
    RULES = "rules"
    """The rules score of the same prompt: a paired comparison."""


_OBJECTIVE = re.compile(
    r"^\s*(?P<op><=|>=)\s*(?P<sign>[+-]?)(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?P<percent>%?)\s*$"
)


class Objective(msgspec.Struct, frozen=True):
    """A parsed objective: ``<= 0.5`` is absolute, ``<= +10%`` relative (limit 0.10)."""

    upper: bool
    """True for ``<=``: too large is bad."""
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read an objective.

        Raises:
            ValueError: it is not of the form.
        """
        match = _OBJECTIVE.match(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not an objective: write '<= 0.5', '>= 0.7', '<= +10%' or '>= -5%'"
            )
        percent, sign = bool(match["percent"]), match["sign"]
        if percent and not sign:
            raise ValueError(f"{text!r}: a relative objective needs a sign, '+10%' or '-5%'")
        if sign and not percent:
            raise ValueError(f"{text!r}: an absolute objective has no sign; relative ones end in %")
        limit = float(f"{sign}{match['number']}")
        return cls(upper=match["op"] == "<=", limit=limit / 100 if percent else limit,
                   relative=percent)  # fmt: skip


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A statement about a metric of the candidate arm."""

    name: Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9-]*$")]
    metric: Metric
    statistic: Statistic
    objective: Annotated[str, Meta(description="'<= 0.5', '>= 0.7', '<= +10%', '>= -5%'")]
    role: GateRole
    against: Annotated[
        Against | None, Meta(description="What a relative objective is relative to.")
    ] = None
    floor: Annotated[
        float,
        Meta(
            ge=0.0, le=1e9, description="A difference up to this, in the metric's unit, is no harm."
        ),
    ] = 0.0
    min_samples: Annotated[
        int, Meta(ge=1, description="Rows an arm, or heartbeats of a worker, before it is judged.")
    ] = 200
    max_samples: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="promotion: not certified after so many rows, the rollout pauses."),
    ] = None
    segments: Annotated[
        list[str], Meta(description="Only their users count; empty: everybody (M30, M51).")
    ] = []
    warmup_seconds: Annotated[
        float,
        Meta(
            ge=0.0, le=YEAR_S, description="Rows so soon after the start of a stage do not count."
        ),
    ] = 0.0
    sustained_seconds: Annotated[
        float, Meta(ge=0.0, le=YEAR_S, description="A breach must last so long, in log time.")
    ] = 0.0
    dry_run: Annotated[bool, Meta(description="Report, but never act.")] = False
    optional: Annotated[
        bool, Meta(description="Without `min_samples` rows it holds nothing up, and is no error.")
    ] = False

    @cached_property
    def parsed(self) -> Objective:
        """The objective, parsed."""
        return Objective.parse(self.objective)


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of the rollout."""

    percent: Percent
    min_seconds: Annotated[float, Meta(ge=0.0, description="Shortest stay, log time.")]
    max_seconds: Annotated[
        float, Meta(gt=0.0, le=YEAR_S, description="Longest stay; then the rollout pauses.")
    ] = DAY_S
    shadow_percent: Annotated[
        float, Meta(ge=0.0, le=100.0, description="Users computed in shadow; only at 0 %.")
    ] = 0.0
    segments: Annotated[
        list[str],
        Meta(description="Only their users: the percentages are of them. Empty: of everybody."),
    ] = []


class Windows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """How log time is cut: windows of whole hops, hops of whole panes."""

    pane_seconds: Annotated[float, Meta(ge=0.1, le=DAY_S, description="Finest step.")] = 2.0
    hop_seconds: Annotated[
        float, Meta(ge=0.1, le=DAY_S, description="A window starts so often.")
    ] = 10.0
    window_seconds: Annotated[float, Meta(ge=0.1, le=DAY_S, description="Length of a window.")] = (
        60.0
    )

    @cached_property
    def pane_ms(self) -> int:
        """Length of a pane in ms."""
        return round(self.pane_seconds * 1000)

    @cached_property
    def hop_ms(self) -> int:
        """Distance between the starts of two windows in ms."""
        return round(self.hop_seconds * 1000)

    @cached_property
    def window_ms(self) -> int:
        """Length of a window in ms."""
        return round(self.window_seconds * 1000)


class Freeze(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    dict=True,
    rename={"from_": "from"},
):
    """A time in which nothing starts and nothing advances; guardrails still roll back."""

    # Strings, since a moment in another time zone would come back from the log in UTC, and the
    # policy with another hash.
    from_: Annotated[str, Meta(description="RFC 3339, with a time zone; log time.")]
    to: Annotated[str, Meta(description="The same; the first moment after it.")]

    @cached_property
    def span_ms(self) -> tuple[int, int]:
        """From and to, in ms since the epoch.

        Raises:
            ValueError: one of them is no RFC 3339 time.
        """
        return _epoch_ms(self.from_), _epoch_ms(self.to)


def _epoch_ms(text: str) -> int:
    try:
        moment: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{text!r} is no RFC 3339 time with a zone, such as '2026-12-24T00:00:00Z'"
        ) from error
    return round(moment.timestamp() * 1000)


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Everything that a rollout is judged by. Frozen when a rollout starts."""

    deployments: Annotated[list[Deployment], Meta(min_length=1)]
    blue: Annotated[str, Meta(description="What serves when nothing was ever rolled out.")]
    green: Annotated[str, Meta(description="What `rollout start` rolls out by default.")]
    stages: Annotated[list[Stage], Meta(min_length=1)]
    gates: Annotated[list[Gate], Meta(min_length=1)]
    mode: Annotated[
        Mode, Meta(description="experiment: one stage decides who wins (M12, M49).")
    ] = Mode.ROLLOUT
    alpha: Annotated[
        float, Meta(gt=0.0, lt=0.5, description="Chance of a false rollback, whole rollout.")
    ] = 0.05
    windows: Windows = Windows()
    segments: Annotated[
        list[Segment], Meta(max_length=200, description="A measured row names one in a byte.")
    ] = []
    confirm_seconds: Annotated[
        float,
        Meta(gt=0.0, le=DAY_S, description="A rollback not confirmed by then raises an alert."),
    ] = 30.0
    holdback_percent: Annotated[
        float,
        Meta(ge=0.0, lt=100.0, description="Users kept on blue in the last stage, as a control."),
    ] = 0.0
    freezes: list[Freeze] = []
    drift: DriftRules = DriftRules()
    rollback_window_seconds: Annotated[
        float,
        Meta(ge=0.0, le=YEAR_S, description="Abort after a promotion is possible for so long."),
    ] = 30 * DAY_S
    watch_after_promotion: Annotated[
        bool, Meta(description="Guardrails still roll back within the rollback window.")
    ] = True
    alerts: AlertRules = AlertRules()
    preflight: Annotated[
        list[PreflightCheck],
        Meta(description="Checks that must have passed, or the start is refused."),
    ] = []

    def share_of(self, stage: int) -> float:
        """The share of users that green serves at a stage, in [0, 1]."""
        return min(self.stages[stage].percent, 100.0 - self.holdback_percent) / 100

    def freeze_at(self, at_ms: int) -> Freeze | None:
        """The freeze that a moment of log time lies in."""
        return next((f for f in self.freezes if f.span_ms[0] <= at_ms < f.span_ms[1]), None)

    @cached_property
    def hash(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def deployment(self, name: str) -> Deployment | None:
        """The deployment of that name, if there is one."""
        return next((d for d in self.deployments if d.name == name), None)


_HALF = 50
_FIELD = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$", re.DOTALL)
"""msgspec names such a field in the reason, and only the object around it in the path."""


def parse_policy(text: str, *, file: str) -> Policy:
    """Read a policy from YAML.

    Args:
        text: the YAML document.
        file: what to call it in errors.

    Raises:
        PolicyError: with the file, the key and the reason.
    """
    try:
        data = load_yaml(text)
    except ValueError as error:
        raise PolicyError(f"{file}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise PolicyError(f"{file}: a policy is a mapping, this is {type(data).__name__}")
    _fill_in(data)
    try:
        policy = msgspec.convert(data, Policy)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        field = _FIELD.search(reason)
        key = path.strip("`").removeprefix("$") + (f".{field[1]}" if field else "")
        raise PolicyError(f"{file}: {key.removeprefix('.')}: {reason}") from error
    from schemas.policy_checks import contradictions  # noqa: PLC0415 - it imports these types

    for key, reason in contradictions(policy):
        raise PolicyError(f"{file}: {key}: {reason}")
    return policy


def _fill_in(data: dict[str, Any]) -> None:
    """An experiment's stage without a percentage is half of the users, unless it is a shadow."""
    stages = data.get("stages")
    if data.get("mode") != Mode.EXPERIMENT or not isinstance(stages, list):
        return
    for stage in stages:
        if isinstance(stage, dict):
            stage.setdefault("percent", 0 if stage.get("shadow_percent") else _HALF)


def load_policy(path: Path) -> Policy:
    """Read a policy from a file.

    Raises:
        PolicyError: it cannot be read or used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read: {error}") from error
    return parse_policy(text, file=str(path))


def default_policy() -> Policy:
    """The policy that ships: the numbers of the mission."""
    name = "policy.default.yaml"
    return parse_policy(resources.files("schemas").joinpath(name).read_text("utf-8"), file=name)
