"""The verdict: the worst that is true of a service, in a word and a sentence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.control import (
    AlertEvent,
    AlertSeverity,
    AlertStatus,
    CommandRejected,
    DriftDetected,
    GateReport,
    GateStatus,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutRolledBack,
    Verdict,
)
from schemas.rollout import Phase, RolloutState
from streams.console.model import ServiceView
from streams.console.rollouts import rollout_lines
from streams.console.verdict import Level, last_decision, standing
from tests.support.folding import T0_MS
from tests.support.samples import sample
from tests.support.staging import Staged, staged_policy


def replaced(kind: type[Any], **changes: Any) -> Any:
    return msgspec.structs.replace(sample(kind), **changes)


def view(phase: Phase = Phase.PROGRESSING, *verdicts: Verdict, **changes: Any) -> ServiceView:
    """A service that was heard of just now."""
    gates = [replaced(GateReport, gate=f"g{n}", verdict=verdict, dry_run=False, reason="why it is")
             for n, verdict in enumerate(verdicts)]  # fmt: skip
    return ServiceView(
        **{
            "service": "shop",
            "rollout": replaced(RolloutState, phase=phase, at_ms=T0_MS, reason="as it was asked"),
            "status": replaced(GateStatus, at_ms=T0_MS, gates=gates),
            **changes,
        }
    )


def alert(severity: AlertSeverity, status: AlertStatus = AlertStatus.FIRING) -> dict[str, Any]:
    found = replaced(AlertEvent, key="k", severity=severity, status=status, summary="it hurts")
    return {"alerts": {"k": found}}


def decisions(*kinds: type[Any]) -> dict[str, Any]:
    return {"decisions": {kind.__name__: replaced(kind, reason=kind.__name__) for kind in kinds}}


@pytest.mark.parametrize(
    ("known", "title", "level", "why"),
    [
        (ServiceView(service="shop"), "No data yet", Level.UNKNOWN, "no monitor"),
        (view(Phase.PROGRESSING, Verdict.SUCCESSFUL), "Rolling out", Level.OK, "1 of 1 gates"),
        (view(Phase.IDLE), "Healthy", Level.OK, "nothing is being rolled out"),
        (view(Phase.PROMOTED), "Promoted", Level.OK, "as it was asked"),
        (view(Phase.PAUSED), "Paused", Level.WARN, "as it was asked"),
        (view(Phase.PROGRESSING, Verdict.FAILED), "Degraded", Level.BAD, "why it is"),
        (
            view(Phase.PROGRESSING, Verdict.FAILED, Verdict.FAILED, Verdict.FAILED),
            "Degraded", Level.BAD, "why it is (and 2 more gates)",
        ),
        (view(Phase.PROGRESSING, Verdict.ERROR), "Cannot be judged", Level.WARN, "why it is"),
        (view(Phase.IDLE, **alert(AlertSeverity.CRITICAL)), "Degraded", Level.BAD, "it hurts"),
        (view(Phase.IDLE, **alert(AlertSeverity.WARNING)), "Needs a look", Level.WARN, "it hurts"),
        (
            view(Phase.IDLE, **alert(AlertSeverity.CRITICAL, AlertStatus.RESOLVED)),
            "Healthy", Level.OK, "",
        ),
        (
            view(Phase.IDLE, drift={"all/relevance": replaced(DriftDetected, reason="moved")}),
            "Drifting", Level.WARN, "moved",
        ),
        (view(Phase.ROLLED_BACK), "Rolled back", Level.BAD, "as it was asked"),
        (
            view(Phase.ROLLED_BACK, **decisions(RolloutRolledBack)),
            "Rolling back", Level.BAD, "not confirmed yet; waiting for",
        ),
        (
            view(Phase.ROLLED_BACK, **decisions(RolloutRolledBack, RollbackConfirmed)),
            "Rolled back", Level.BAD, "RollbackConfirmed",
        ),
    ],
)  # fmt: skip
def test_the_worst_comes_first(known: ServiceView, title: str, level: Level, why: str) -> None:
    """Each state has its word, its level, and says why."""
    found = standing(known, T0_MS + 1000)
    assert (found.title, found.level) == (title, level)
    assert why in found.why


def test_a_dry_run_degrades_nothing() -> None:
    """A gate that never acts does not frighten anybody."""
    known = view(Phase.PROGRESSING, Verdict.FAILED)
    assert known.status is not None
    dry = [msgspec.structs.replace(g, dry_run=True) for g in known.status.gates]
    known.status = msgspec.structs.replace(known.status, gates=dry)
    assert standing(known, T0_MS).title == "Rolling out"


@pytest.mark.parametrize(
    ("phase", "after_s", "title"),
    [
        (Phase.PROGRESSING, 19, "Rolling out"),
        (Phase.PROGRESSING, 21, "Not watched"),
        (Phase.IDLE, 149, "Healthy"),
        (Phase.IDLE, 151, "Not watched"),
        (Phase.IDLE, 86_400 * 3, "Not watched"),
    ],
)
def test_a_monitor_that_says_nothing_is_not_taken_for_health(
    phase: Phase, after_s: int, title: str
) -> None:
    """No news is bad news: during a rollout after seconds, else after minutes."""
    found = standing(view(phase), T0_MS + after_s * 1000)
    assert found.title == title
    if title == "Not watched":
        assert "driftgate monitor" in found.why


def test_the_last_decision_is_about_traffic() -> None:
    """A refused command, drift and a confirmation do not hide why traffic goes where it goes."""
    known = view(Phase.IDLE, **decisions(RolloutAdvanced, CommandRejected, DriftDetected))
    found = last_decision(known)
    assert found is not None
    assert found.reason == "RolloutAdvanced"
    assert last_decision(ServiceView(service="shop")) is None


def test_a_rollout_is_a_line_with_its_stages() -> None:
    """Who began it, the shares that it reached, how it ended; the newest first."""
    shop = Staged("shop", now_ms=T0_MS)
    shop.rolled_out(3.2, staged_policy(20.0))
    shop.go_on(60, error_rate=0.5)
    events = [o.event for o in shop.outputs if hasattr(o.event, "revision")]
    [line] = rollout_lines([e for e in events if hasattr(e, "reason") and hasattr(e, "cause")])  # type: ignore[misc]
    assert [step.share for step in line.steps] == [0.0, 0.25, 0.5]
    assert (line.green, line.blue, line.actor) == ("semantic", "baseline", "ann")
    assert line.phase is Phase.ROLLED_BACK
    assert "semantic_error" in line.reason
    assert line.confirmed_ms is not None
    assert line.ended_ms is not None


def test_a_rollout_whose_start_is_forgotten_is_shown_as_far_as_it_is_known() -> None:
    """Older than what is kept, it has no names, and is there nevertheless."""
    advanced = replaced(RolloutAdvanced, rollout_id="r", share=0.25, at_ms=5)
    [line] = rollout_lines([advanced])
    assert (line.blue, line.green, line.started_ms) == (None, None, 5)
    assert rollout_lines([replaced(RolloutAdvanced, rollout_id=None)]) == []
