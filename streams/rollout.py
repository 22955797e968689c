"""The rollout state machine: shadow, stages, pause, promotion and the way back."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.alerting import AlertRule
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
from streams.alerts import acknowledge, fire, resolve, resolve_all
from streams.drift.say import watch_drift_anew
from streams.emit import Emitter
from streams.outputs import decision_id
from streams.split import new_split
from streams.state import Confirmation, ServiceState
from streams.watch import new_watch, watch_after_promotion
from streams.workers import overtake_confirmation

__all__ = ["ACTIVE", "advance", "end_watch", "obey", "pause", "promote", "roll_back"]

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
    refusal = (
        acknowledge(state, command, emit)
        if command.command is Command.ACKNOWLEDGE
        else _refusal(state, command)
    )
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
                emit,
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
            if state.rehearsal:
                return "this is a rehearsal: abort it, and start a rollout"
            return _frozen(state.policy, state.now_ms)
        case Command.ABORT if phase not in ACTIVE and (
            phase is not Phase.PROMOTED or state.previous_blue is None
        ):
            return f"there is no rollout to take back: the service is {phase}"
        case Command.ABORT if phase is Phase.PROMOTED:
            return _too_late(state)
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
    if command.rehearsal and command.policy.stages[0].percent > 0:
        return "a rehearsal needs a policy whose first stage is a shadow: this one serves users"
    passed = {result.check for result in command.preflight if result.passed}
    missing = [check for check in command.policy.preflight if check not in passed]
    if missing and not command.rehearsal:
        return (
            f"the policy asks for checks that have not passed: {', '.join(missing)}; see "
            "`driftgate rollout preflight`"
        )
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
    state.baselines = {}
    state.rehearsal = command.rehearsal
    # Above all that any worker has applied, even if an older state was lost with its log.
    known = max((w.applied_revision for w in state.workers.values()), default=0)
    state.rollout = msgspec.structs.replace(
        state.rollout, revision=max(state.rollout.revision, known), rollout_id=rollout_id
    )
    _enter_stage(
        state,
        0,
        reason,
        emit,
        phase=Phase.PROGRESSING,
        blue=blue,
        green=green,
        salt=rollout_id,
        segments=policy.segments,
        mode=policy.mode,
    )
    assert green is not None  # refused otherwise
    emit.control(
        RolloutStarted,
        reason=reason,
        blue=blue.name,
        green=green.name,
        mode=policy.mode,
        shares=[policy.share_of(place) for place in range(len(policy.stages))],
        preflight=command.preflight,
        rehearsal=command.rehearsal,
        deployments=[blue, green],
        policy=policy,
    )
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
    _enter_stage(state, state.rollout.stage + 1, reason, emit, phase=Phase.PROGRESSING)
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
    _end(state, reason, emit, phase=Phase.PROMOTED, blue=green)
    _forget_breaches(state, "green was promoted", emit)
    if state.policy.watch_after_promotion:
        # Its gates warm up anew, too.
        state.stage_since_ms = state.now_ms
        state.watch = watch_after_promotion(state.policy, state.baselines)
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
    if emit.command is None:
        fire(
            state,
            emit,
            AlertRule.ROLLOUT_PAUSED,
            f"the rollout of {state.service} paused by itself: {reason}",
            "look at `driftgate rollout status`, then resume, promote or abort it",
        )


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
    _end(state, reason, emit, phase=Phase.ROLLED_BACK, blue=blue)
    state.confirmation = Confirmation(revision=state.rollout.revision, since_ms=state.now_ms)
    emit.control(RolloutRolledBack, reason=reason, gate=gate, workers=state.live_workers())
    emit.rollout()


def end_watch(state: ServiceState, emit: Emitter) -> None:
    """Watch a promoted deployment no longer: it cannot be taken back any more."""
    state.watch = None
    state.failed_gates.clear()
    _forget_breaches(state, "its rollback window is over", emit)


def _enter_stage(
    state: ServiceState,
    index: int,
    reason: str,
    emit: Emitter,
    *,
    restart: int = 0,
    **changes: Any,
) -> None:
    stage: Stage = state.policy.stages[index]
    share = state.policy.share_of(index)
    _leave_stage(state, emit)
    _forget_breaches(state, "its stage is over, and the next one begins with no evidence", emit)
    state.stage_since_ms = state.now_ms
    state.watch = new_watch(state.policy, control_exists=share < 1.0, restart=restart)
    state.split = new_split(state.policy, index, restart=restart)
    _change(
        state,
        reason,
        stage=index,
        share=share,
        shadow_share=stage.shadow_percent / 100,
        only_segments=stage.segments,
        **changes,
    )


def _end(state: ServiceState, reason: str, emit: Emitter, **changes: Any) -> None:
    _leave_stage(state, emit)
    state.watch = state.split = None
    _change(state, reason, green=None, share=0.0, shadow_share=0.0, only_segments=[], **changes)


def _leave_stage(state: ServiceState, emit: Emitter) -> None:
    if state.watch is not None:
        state.baselines |= state.watch.baselines()
    state.failed_gates.clear()
    resolve(state, emit, AlertRule.ROLLOUT_PAUSED, "the rollout goes on, or is over")


def _forget_breaches(state: ServiceState, why: str, emit: Emitter) -> None:
    resolve_all(state, emit, AlertRule.GATE_BREACHED, why)


def _change(state: ServiceState, reason: str, **changes: Any) -> None:
    state.rollout = msgspec.structs.replace(
        state.rollout,
        revision=state.rollout.revision + 1,
        reason=reason,
        at_ms=state.now_ms,
        **changes,
    )
