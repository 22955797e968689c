"""Alerts: what people are told of, and when they are told again (M63)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["AlertRule", "AlertRules"]

YEAR_S = 365 * 86_400.0


class AlertRule(StrEnum):
    """What an alert is about; the first part of its key (M63)."""

    COMMAND_UNREADABLE = "command-unreadable"
    DRIFT = "drift"
    GATE_BREACHED = "gate-breached"
    LAG = "lag"
    LOG_UNREADABLE = "log-unreadable"
    MODEL_UNAVAILABLE = "model-unavailable"
    ROLLBACK_UNCONFIRMED = "rollback-unconfirmed"
    ROLLOUT_PAUSED = "rollout-paused"
    SILENCE = "silence"
    WORKER_BEHIND = "worker-behind"
    WORKER_LOST = "worker-lost"


class AlertRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people are told of, and when they are told again. Times are log time."""

    muted: Annotated[list[AlertRule], Meta(description="Rules that raise no alert.")] = []
    escalate_seconds: Annotated[
        list[Annotated[float, Meta(gt=0.0, le=YEAR_S)]],
        Meta(description="After so long without an acknowledgement, each counted from the last."),
    ] = msgspec.field(default_factory=lambda: [900.0, 3600.0])
    lag_messages: Annotated[
        int, Meta(ge=1, description="Prompts that wait, over all live analyzers.")
    ] = 10_000
    lag_seconds: Annotated[
        float, Meta(ge=0.0, le=YEAR_S, description="So many must wait for so long.")
    ] = 60.0
    model_unavailable_seconds: Annotated[
        float, Meta(ge=0.0, le=YEAR_S, description="A live analyzer without a model for so long.")
    ] = 30.0
    silence_seconds: Annotated[
        float,
        Meta(ge=0.0, le=YEAR_S, description="No prompt was measured for so long; 0: never told."),
    ] = 900.0
