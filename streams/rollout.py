"""The rollout state machine: shadow, stages, pause, promotion and the way back."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.control import (
    CommandRejected,
    GateReport,
    RolloutAdvanced,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RolloutRolledBack,
    RolloutStarted,
)
from schemas.log import Command, OperatorCommand
from schemas.policy import Policy, Stage
from schemas.policy_checks import contradictions
from schemas.rollout import Phase
from streams.drift.say import watch_drift_anew
from streams.emit import Emitter
from streams.outputs import decision_id
from streams.split import new_split
from streams.state import Confirmation, ServiceState
from streams.watch import new_watch
from streams.workers import overtake_confirmation

__all__ = ["ACTIVE", "advance", "obey", "pause", "promote", "roll_back"]

ACTIVE = frozenset({Phase.PROGRESSING, Phase.PAUSED})
"""Phases in which there is a green deployment under test."""

_REMEMBERED_COMMANDS = 256


def obey(state: ServiceState, command: OperatorCommand, emit: Emitter) -> None:
    """Do what an operator asks for, or say on the control topic why not.

    A command whose id was seen before changes nothing and says nothing.
    """
    if command.id in state.command_ids:
        return
    emit.command = command
    state.command_ids = [*state.command_ids, command.id][-_REMEMBERED_COMMANDS:]
    refusal = _refusal(state, command)
    if refusal:
        emit.control(
            CommandRejected,
            reason=f"{command.command}: {refusal}",
        )
        return
    reason = command.reason or f"asked for by {command.actor}"
    match command.command:
        case Command.START:
            _start(state, command, reason, emit)
        case Command.RETRY:
            _start(state, _again(state, command), reason, emit)
        case Command.PAUSE:
            pause(state, reason, emit)
        case Command.RESUME:
            # The stage begins anew: else one that was paused for its length would pause at once,
            # and one that was paused by a gate would be by the same evidence.
            state.resumptions += 1
            _enter_stage(
                state,
                state.rollout.stage,
                reason,
                restart=state.resumptions,
                phase=Phase.PROGRESSING,
            )
            emit.control(RolloutResumed, reason=reason)
            emit.rollout()
        case Command.PROMOTE:
            last = state.rollout.stage == len(state.policy.stages) - 1
            if command.full or last:
                promote(state, reason, emit, gates=[])
            else:
                advance(state, reason, emit, gates=[])
        case Command.ABORT:
            roll_back(state, reason, emit)


def _refusal(state: ServiceState, command: OperatorCommand) -> str | None:
    phase = state.rollout.phase
    match command.command:
        case Command.START:
            return _start_refusal(state, command)
        case Command.RETRY:
            if phase is not Phase.ROLLED_BACK or state.taken_back is None:
                return f"nothing was rolled back that could start again: the service is {phase}"
            return _start_refusal(state, _again(state, command))
        case Command.PAUSE if phase is not Phase.PROGRESSING:
            return f"nothing is progressing: the service is {phase}"
        case Command.RESUME if phase is not Phase.PAUSED:
            return f"nothing is paused: the service is {phase}"
        case Command.PROMOTE:
            if phase not in ACTIVE:
                return f"there is no rollout to promote: the service is {phase}"
            return _frozen(state.policy, state.now_ms)
        case Command.ABORT if phase not in ACTIVE and (
            phase is not Phase.PROMOTED or state.previous_blue is None
        ):
            return f"there is no rollout to take back: the service is {phase}"
        case Command.ABORT if phase is Phase.PROMOTED:
            return _too_late(state)
        case Command.ACKNOWLEDGE:
            return f"no alert {command.alert_key!r} is open"
    return None


def _start_refusal(state: ServiceState, command: OperatorCommand) -> str | None:
    if state.rollout.phase in ACTIVE:
        return (
            f"rollout {state.rollout.rollout_id} is {state.rollout.phase}: "
            "abort or promote it first"
        )
    if command.policy is None:
        return "comes without a policy"
    for key, wrong in contradictions(command.policy):
        return f"the policy cannot be used: {key}: {wrong}"
    green = command.green or command.policy.green
    if command.policy.deployment(green) is None:
        known = ", ".join(d.name for d in command.policy.deployments)
        return f"the policy has no deployment {green!r}; it has: {known}"
    blue = state.rollout.blue.name if state.rollout.revision else command.policy.blue
    if green == blue:
        return f"{green!r} is what serves already"
    return _frozen(command.policy, state.now_ms)


def _frozen(policy: Policy, now_ms: int) -> str | None:
    freeze = policy.freeze_at(now_ms)
    if freeze is None:
        return None
    return (
        f"the policy has a freeze from {freeze.from_} to {freeze.to}: wait for its end, or start "
        "with a policy without it; pause and abort are possible"
    )


def _too_late(state: ServiceState) -> str | None:
    seconds = (state.now_ms - state.rollout.at_ms) / 1000
    if seconds <= state.policy.rollback_window_seconds:
        return None
    assert state.previous_blue is not None  # refused before
    return (
        f"the promotion was {seconds:.0f} s ago, and the policy's rollback window is "
        f"{state.policy.rollback_window_seconds:g} s: roll out {state.previous_blue.name!r} "
        f"instead, with `driftgate rollout start --green {state.previous_blue.name}`"
    )


def _again(state: ServiceState, command: OperatorCommand) -> OperatorCommand:
    """The start command that a retry stands for."""
    return msgspec.structs.replace(
        command, command=Command.START, policy=state.policy, green=state.taken_back
    )


def _start(state: ServiceState, command: OperatorCommand, reason: str, emit: Emitter) -> None:
    policy = command.policy
    assert policy is not None  # refused otherwise
    green = policy.deployment(command.green or policy.green)
    blue = state.rollout.blue
    if not state.rollout.revision:
        first = policy.deployment(policy.blue)
        assert first is not None  # parse_policy refuses a policy without it
        blue = first
    rollout_id = decision_id(state.service, "rollout", command.id, state.now_ms)[:16]
    if policy.windows != state.policy.windows:
        # Panes of another length fit into no window of this policy; otherwise those that are open
        # go on. The evidence begins anew in any case, with the revision.
        state.panes = []
        state.windows_from_ms = state.now_ms
    watch_drift_anew(state, policy.drift, emit)
    state.policy = policy
    state.resumptions = 0
    # Above all that any worker has applied, even if an older state was lost with its log.
    known = max((w.applied_revision for w in state.workers.values()), default=0)
    state.rollout = msgspec.structs.replace(
        state.rollout, revision=max(state.rollout.revision, known), rollout_id=rollout_id
    )
    _enter_stage(
        state,
        0,
        reason,
        phase=Phase.PROGRESSING,
        blue=blue,
        green=green,
        salt=rollout_id,
        segments=policy.segments,
        mode=policy.mode,
    )
    assert green is not None  # refused otherwise
    emit.control(RolloutStarted, reason=reason, blue=blue.name, green=green.name,
                 mode=policy.mode)  # fmt: skip
    emit.rollout()
    overtake_confirmation(state, emit)


def advance(
    state: ServiceState,
    reason: str,
    emit: Emitter,
    *,
    gates: list[GateReport],
) -> None:
    """Go to the next stage."""
    _enter_stage(state, state.rollout.stage + 1, reason, phase=Phase.PROGRESSING)
    emit.control(RolloutAdvanced, reason=reason, gates=gates)
    emit.rollout()


def promote(
    state: ServiceState,
    reason: str,
    emit: Emitter,
    *,
    gates: list[GateReport],
) -> None:
    """Make green the new blue."""
    green = state.rollout.green
    assert green is not None  # only an active rollout is promoted
    state.previous_blue = state.rollout.blue
    _end(state, reason, phase=Phase.PROMOTED, blue=green)
    emit.control(RolloutPromoted, reason=reason, blue=green.name, gates=gates)
    emit.rollout()


def pause(
    state: ServiceState,
    reason: str,
    emit: Emitter,
    *,
    gate: GateReport | None = None,
) -> None:
    """Keep the share where it is until somebody resumes."""
    _change(state, reason, phase=Phase.PAUSED)
    emit.control(RolloutPaused, reason=reason, gate=gate)
    emit.rollout()


def roll_back(
    state: ServiceState,
    reason: str,
    emit: Emitter,
    *,
    gate: GateReport | None = None,
) -> None:
    """Send every user back to blue, and wait for all workers to say that they did."""
    active = state.rollout.phase in ACTIVE
    blue = state.rollout.blue if active else state.previous_blue
    tried = state.rollout.green if active else state.rollout.blue
    assert blue is not None  # refused otherwise
    assert tried is not None  # there is one in an active phase
    state.taken_back = tried.name
    state.previous_blue = None
    _end(state, reason, phase=Phase.ROLLED_BACK, blue=blue)
    state.confirmation = Confirmation(revision=state.rollout.revision, since_ms=state.now_ms)
    emit.control(RolloutRolledBack, reason=reason, gate=gate, workers=state.live_workers())
    emit.rollout()


def _enter_stage(
    state: ServiceState, index: int, reason: str, *, restart: int = 0, **changes: Any
) -> None:
    stage: Stage = state.policy.stages[index]
    state.stage_since_ms = state.now_ms
    state.failed_gates.clear()
    state.watch = new_watch(state.policy, restart=restart)
    state.split = new_split(state.policy, index, restart=restart)
    _change(
        state,
        reason,
        stage=index,
        share=state.policy.share_of(index),
        shadow_share=stage.shadow_percent / 100,
        only_segments=stage.segments,
        **changes,
    )


def _end(state: ServiceState, reason: str, **changes: Any) -> None:
    state.failed_gates.clear()
    state.watch = state.split = None
    _change(state, reason, green=None, share=0.0, shadow_share=0.0, only_segments=[], **changes)


def _change(state: ServiceState, reason: str, **changes: Any) -> None:
    state.rollout = msgspec.structs.replace(
        state.rollout,
        revision=state.rollout.revision + 1,
        reason=reason,
        at_ms=state.now_ms,
        **changes,
    )
