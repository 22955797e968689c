"""Collects what one step of the fold says, and gives each event its derived id."""

from __future__ import annotations

from typing import Any

from schemas.control import (
    AlertEvent,
    AlertStatus,
    ControlEvent,
    GateReport,
    GateStatus,
    LogPosition,
    WindowMetrics,
)
from schemas.drift import DriftReading
from schemas.log import OperatorCommand
from schemas.topics import Topic
from schemas.version import VERSION
from streams.libraries import LIBRARIES
from streams.outputs import Output, decision_id
from streams.state import OpenAlert, ServiceState

__all__ = ["Emitter"]

SYSTEM = "driftgate"
"""The actor of a decision that nobody asked for."""


class Emitter:
    """The outputs of one step, in order."""

    def __init__(self, state: ServiceState, cause: LogPosition) -> None:
        self.outputs: list[Output] = []
        self.command: OperatorCommand | None = None
        """The command that is being obeyed: its actor is answerable for what is said."""
        self._state = state
        self.cause = cause
        """The record that is being folded."""

    def _id(self, kind: str) -> str:
        state = self._state
        return decision_id(
            state.service, kind, self.cause.partition, self.cause.offset, len(self.outputs)
        )

    def _add(self, topic: Topic, event: Any, id: str) -> None:
        state = self._state
        self.outputs.append(
            Output(topic, event, id, state.now_ms, self.cause, state.rollout.rollout_id)
        )

    def control(self, kind: type[ControlEvent], *, reason: str, **details: Any) -> str:
        """A control event about the rollout as it stands now; its id."""
        state = self._state
        id = self._id(str(kind.__struct_config__.tag))
        event = kind(
            id=id,
            service=state.service,
            rollout_id=state.rollout.rollout_id,
            revision=state.rollout.revision,
            stage=state.rollout.stage,
            share=state.rollout.share,
            at_ms=state.now_ms,
            cause=self.cause,
            reason=reason,
            policy_hash=state.policy.hash,
            code_version=VERSION,
            libraries=LIBRARIES,
            actor=self.command.actor if self.command else SYSTEM,
            command_id=self.command.id if self.command else None,
            **details,
        )
        self._add(Topic.CONTROL, event, id)
        return id

    def rollout(self) -> None:
        """The rollout state, for analyzers to obey."""
        self._add(Topic.ROLLOUT, self._state.rollout, self._id("rollout.state"))

    def metrics(self, metrics: WindowMetrics) -> None:
        """A window's metrics."""
        self._add(Topic.METRICS, metrics, metrics.id)

    def gates(self, gates: list[GateReport], drift: list[DriftReading]) -> None:
        """How every gate and every drift detector stands now."""
        state = self._state
        id = self._id("gate.status")
        status = GateStatus(
            id=id,
            service=state.service,
            rollout_id=state.rollout.rollout_id,
            revision=state.rollout.revision,
            stage=state.rollout.stage,
            share=state.rollout.share,
            stage_seconds=(state.now_ms - state.stage_since_ms) / 1000,
            at_ms=state.now_ms,
            measured=state.measured,
            live_workers=state.live_workers(),
            gates=gates,
            phase=state.rollout.phase,
            fenced_workers=sorted(n for n, w in state.workers.items() if w.fenced),
            refused=state.undecodable,
            drift=drift,
        )
        self._add(Topic.METRICS, status, id)

    def alert(self, key: str, alert: OpenAlert, status: AlertStatus) -> None:
        """Something for a person."""
        event = AlertEvent(
            id=self._id(f"alert.{status}.{key}"),
            key=key,
            rule=alert.rule,
            service=self._state.service,
            status=status,
            severity=alert.severity,
            summary=alert.summary,
            cure=alert.cure,
            since_ms=alert.since_ms,
            at_ms=self._state.now_ms,
            cause=self.cause,
            actor=alert.acknowledged_by,
            escalation=alert.escalation,
        )
        self._add(Topic.ALERTS, event, event.id)
