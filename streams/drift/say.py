"""Drift in the fold: takes each batch, and says on the control topic what begins and ends."""

from __future__ import annotations

from schemas.alerting import AlertRule
from schemas.control import DriftCleared, DriftDetected
from schemas.drift import DriftDetector, DriftReading, DriftRules
from streams.alerts import fire, resolve
from streams.drift.episode import Finding
from streams.drift.sums import ArmSums
from streams.drift.watch import new_drift_watch
from streams.emit import Emitter
from streams.samples import Samples
from streams.state import ServiceState

__all__ = ["drift_readings", "watch_drift", "watch_drift_anew"]


def watch_drift(
    state: ServiceState,
    samples: Samples,
    sums: tuple[ArmSums | None, ArmSums | None],
    emit: Emitter,
) -> None:
    """Take rows, whatever the rollout does: prompts drift between rollouts too.

    Args:
        state: of the service, in place.
        samples: the rows, that were not counted before.
        sums: of them.
        emit: what is said.
    """
    rules = state.policy.drift
    if not rules.enabled:
        return
    if state.drift is None:
        state.drift = new_drift_watch(rules)
    found = state.drift.take(samples, sums, state.last_offset, rules)
    for finding in found:
        _say(state, finding, emit)


def watch_drift_anew(state: ServiceState, rules: DriftRules, emit: Emitter) -> None:
    """Begin anew if a policy that comes into force watches otherwise, for example by a reference.

    What was open is closed: nobody could say any more when it ends.

    Args:
        state: of the service, still under its former policy.
        rules: of the policy that comes.
        emit: what is said.
    """
    if state.drift is None or rules == state.policy.drift:
        return
    for finding in state.drift.close():
        _say(state, finding, emit)
    state.drift = None


def drift_readings(state: ServiceState) -> list[DriftReading]:
    """How every detector stands."""
    return state.drift.readings() if state.drift is not None else []


def _say(state: ServiceState, finding: Finding, emit: Emitter) -> None:
    reason = _reason(finding, state.policy.drift)
    _alert(state, finding, reason, emit)
    emit.control(
        DriftDetected if finding.begins else DriftCleared,
        reason=reason,
        feature=finding.feature,
        detector=finding.detector,
        arm=state.policy.drift.arm,
        statistic=finding.statistic,
        threshold=finding.threshold,
        direction=finding.direction,
        first_offset=finding.first_offset,
        last_offset=state.last_offset,
        reference=finding.reference,
    )


def _alert(state: ServiceState, finding: Finding, reason: str, emit: Emitter) -> None:
    if not finding.begins:
        resolve(state, emit, AlertRule.DRIFT, reason, subject=finding.feature)
        return
    cure = (
        "look at the prompts of these minutes (`driftgate curate list --reason drift`): drift "
        "never takes a rollout back by itself. If prompts stay so, make a reference of them "
        "(`driftgate drift calibrate`) for the next rollout"
    )
    fire(state, emit, AlertRule.DRIFT, reason, cure, subject=finding.feature)


def _reason(finding: Finding, rules: DriftRules) -> str:
    what, limit = f"{finding.statistic:.4g}", f"{finding.threshold:.4g}"
    against = "the reference" if finding.reference else "the first rows"
    if finding.watched_anew:
        return (
            f"{finding.feature} is watched anew, against another reference or model: what it "
            f"drifted from does not count any more"
        )
    if finding.begins:
        moved = f"{finding.feature} has moved {finding.direction}"
        match finding.detector:
            case DriftDetector.ADWIN:
                return (
                    f"{moved}: its mean since the last change is {what} standard deviations from "
                    f"{against} (adwin), tolerated are {limit}"
                )
            case DriftDetector.HDDM_W:
                return f"{moved}: the rate is {what} above its lowest (hddm_w), bound {limit}"
            case _:
                return (
                    f"{moved} from {against}: {finding.detector} is at {what}, above its "
                    f"threshold of {limit}"
                )
    return (
        f"{finding.feature} is as in {against} again: {what} over the last {rules.clear_rows} "
        f"rows, quiet up to {limit}"
    )
