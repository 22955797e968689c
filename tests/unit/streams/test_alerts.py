"""Alerts by folding the log: raised once, acknowledged, escalated, resolved (M63)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.alerting import AlertRule, AlertRules
from schemas.control import AlertEvent, AlertSeverity, AlertStatus, CommandRejected, GateStatus
from schemas.log import Command, CommandUnreadable, ModelState, RowFlag
from schemas.policy import Gate, Policy
from streams.alerts import NOTICE_MS
from tests.support.folding import Story, gate, of_type, policy

FIRING, ACKNOWLEDGED = AlertStatus.FIRING, AlertStatus.ACKNOWLEDGED
ESCALATED, RESOLVED = AlertStatus.ESCALATED, AlertStatus.RESOLVED


def watched(*gates: Gate, **rules: Any) -> Policy:
    """A policy with these gates and alert rules, whose stages last for hours."""
    return policy(
        *gates,
        min_seconds=80_000.0,
        max_seconds=86_400.0,
        windows=policy().windows,
        alerts=AlertRules(**rules),
    )


def rolling(*gates: Gate, stage: int = 1, **rules: Any) -> Story:
    """A rollout that a person has brought to a stage, with a worker that is alive."""
    story = Story()
    story.start(watched(*(gates or (gate("semantic-errors"),)), **rules))
    for _ in range(stage):
        story.command(Command.PROMOTE)
    story.beat()
    return story


def said(story: Story, rule: AlertRule) -> list[AlertEvent]:
    """The alerts of a rule, in their order."""
    return [a for a in of_type(story.outputs, AlertEvent) if a.rule == rule]


def statuses(story: Story, rule: AlertRule) -> list[AlertStatus]:
    """What became of the alerts of a rule."""
    return [a.status for a in said(story, rule)]


def living(story: Story, seconds: int, worker: str = "w1", **details: Any) -> Story:
    """Let time pass with a heartbeat a second."""
    for _ in range(seconds):
        story.after(1).beat(worker, **details)
    return story


def test_a_broken_guardrail_is_an_alert_until_the_rollback_is_confirmed() -> None:
    """It says why and what to do; everybody back on blue, by all workers, is its end."""
    story = rolling()
    story.after(1).measure(300, 300, flags=RowFlag.FALLBACK)
    (alert,) = said(story, AlertRule.GATE_BREACHED)
    assert alert.severity is AlertSeverity.CRITICAL
    assert alert.key == "gate-breached/shop/semantic-errors"
    assert "semantic_error rate <= 0.01: failed" in alert.summary
    assert "driftgate rollout explain" in alert.cure
    story.after(1).beat()
    firing, resolved = said(story, AlertRule.GATE_BREACHED)
    assert (resolved.status, resolved.key) == (RESOLVED, firing.key)
    assert resolved.since_ms == firing.since_ms
    assert resolved.at_ms == firing.at_ms + 1000


def test_a_signal_that_recovers_resolves_its_alert() -> None:
    """The pause stays, since a person decides on it; the breach is over."""
    story = rolling(gate("cache-hits", warmup_seconds=0.0))
    story.after(1).measure(0, 600, flags=RowFlag.CACHE_LOOKUP)
    assert statuses(story, AlertRule.GATE_BREACHED) == [FIRING]
    assert said(story, AlertRule.GATE_BREACHED)[0].severity is AlertSeverity.WARNING
    for _ in range(40):
        story.after(1).measure(0, 600)
    assert statuses(story, AlertRule.GATE_BREACHED) == [FIRING, RESOLVED]
    assert statuses(story, AlertRule.ROLLOUT_PAUSED) == [FIRING]


def test_a_rollout_that_paused_by_itself_waits_for_somebody() -> None:
    """It is an alert until somebody resumes; a pause that was asked for is none."""
    story = rolling(gate("cache-hits", warmup_seconds=0.0))
    story.command(Command.PAUSE)
    assert not said(story, AlertRule.ROLLOUT_PAUSED)
    story.command(Command.RESUME)
    story.after(1).measure(0, 600, flags=RowFlag.CACHE_LOOKUP)
    assert statuses(story, AlertRule.ROLLOUT_PAUSED) == [FIRING]
    story.command(Command.RESUME)
    assert statuses(story, AlertRule.ROLLOUT_PAUSED) == [FIRING, RESOLVED]
    assert statuses(story, AlertRule.GATE_BREACHED) == [FIRING, RESOLVED]


def test_a_dry_run_wakes_nobody() -> None:
    """Its breach is on the control topic, and nothing of it is an alert."""
    story = rolling(gate("semantic-errors", dry_run=True))
    story.after(1).measure(0, 600, flags=RowFlag.FALLBACK)
    assert not said(story, AlertRule.GATE_BREACHED)


def test_an_alert_is_escalated_until_somebody_has_it() -> None:
    """After each interval of the policy, counted from when somebody was last asked."""
    story = rolling(gate("cache-hits", warmup_seconds=0.0), escalate_seconds=[10.0, 20.0])
    story.after(1).measure(0, 600, flags=RowFlag.CACHE_LOOKUP)
    key = said(story, AlertRule.ROLLOUT_PAUSED)[0].key
    living(story, 60)
    alerts = said(story, AlertRule.ROLLOUT_PAUSED)
    assert [a.status for a in alerts] == [FIRING, ESCALATED, ESCALATED]
    assert [a.escalation for a in alerts] == [0, 1, 2]
    assert [a.at_ms - a.since_ms for a in alerts] == [0, 10_000, 30_000]
    story.command(Command.ACKNOWLEDGE, alert_key=key)
    acknowledged = said(story, AlertRule.ROLLOUT_PAUSED)[-1]
    assert (acknowledged.status, acknowledged.actor) == (ACKNOWLEDGED, "ann")


def test_who_has_acknowledged_is_asked_no_more() -> None:
    """An acknowledgement ends the escalation, and stands on the alert's end as well."""
    story = rolling(gate("cache-hits", warmup_seconds=0.0), escalate_seconds=[10.0])
    story.after(1).measure(0, 600, flags=RowFlag.CACHE_LOOKUP)
    story.command(Command.ACKNOWLEDGE, alert_key="rollout-paused/shop")
    living(story, 60)
    story.command(Command.ABORT)
    alerts = said(story, AlertRule.ROLLOUT_PAUSED)
    assert [a.status for a in alerts] == [FIRING, ACKNOWLEDGED, RESOLVED]
    assert alerts[-1].actor == "ann"


def test_only_what_is_open_can_be_acknowledged() -> None:
    """Anything else is refused, with the key that was asked for."""
    story = rolling()
    story.command(Command.ACKNOWLEDGE, alert_key="lag/shop")
    story.command(Command.ACKNOWLEDGE)
    refused = of_type(story.outputs, CommandRejected)
    assert [e.reason for e in refused] == [
        "acknowledge: no alert 'lag/shop' is open",
        "acknowledge: no alert '' is open",
    ]


def test_a_muted_rule_raises_nothing() -> None:
    """What a policy does not want to hear of is not said."""
    story = rolling(muted=[AlertRule.GATE_BREACHED])
    story.after(1).measure(300, 300, flags=RowFlag.FALLBACK)
    assert not said(story, AlertRule.GATE_BREACHED)


def test_a_lost_worker_is_missed_until_it_is_back() -> None:
    """The last one is critical, since nobody analyses then."""
    story = rolling()
    story.beat("w2")
    living(story, 6)
    (alert,) = said(story, AlertRule.WORKER_LOST)
    assert (alert.key, alert.severity) == ("worker-lost/shop/w2", AlertSeverity.WARNING)
    story.silence(6)
    alone = said(story, AlertRule.WORKER_LOST)[-1]
    assert (alone.key, alone.severity) == ("worker-lost/shop/w1", AlertSeverity.CRITICAL)
    assert "no other is alive" in alone.summary
    story.after(1).beat("w2")
    story.beat("w1")
    assert statuses(story, AlertRule.WORKER_LOST) == [FIRING, FIRING, RESOLVED, RESOLVED]


def test_a_worker_that_says_goodbye_is_not_missed() -> None:
    """Nor is one that is replaced by another name an alert for ever."""
    story = rolling()
    story.beat("w2")
    story.after(1).beat("w2", leaving=True)
    living(story, 10)
    assert not said(story, AlertRule.WORKER_LOST)
    story.beat("w3")
    living(story, 3610)
    told = statuses(story, AlertRule.WORKER_LOST)
    assert (told[0], told[-1]) == (FIRING, RESOLVED)
    assert "for an hour" in said(story, AlertRule.WORKER_LOST)[-1].summary


def test_a_silent_log_is_no_silence_of_workers() -> None:
    """A broker that was away for minutes leaves a gap, in which nobody could say anything."""
    story = rolling()
    story.beat("w2")
    story.after(300).tick()
    story.after(1).beat("w1")
    story.after(1).beat("w2")
    assert not said(story, AlertRule.WORKER_LOST)
    living(story, 6)
    assert statuses(story, AlertRule.WORKER_LOST) == [FIRING]


def test_prompts_that_wait_for_too_long_are_an_alert() -> None:
    """So many, over all live workers, for so long; a peak is none."""
    story = rolling(lag_messages=100, lag_seconds=10.0)
    living(story, 5, lag_messages=200)
    living(story, 5)
    assert not said(story, AlertRule.LAG)
    for _ in range(12):
        story.after(1).beat("w1", lag_messages=60)
        story.beat("w2", lag_messages=60)
    (alert,) = said(story, AlertRule.LAG)
    assert "120 prompts wait" in alert.summary
    living(story, 1)
    story.after(1).beat("w2")
    assert statuses(story, AlertRule.LAG) == [FIRING, RESOLVED]


def test_a_model_that_is_away_is_an_alert() -> None:
    """One that is being loaded is not; what has no model is named (M22)."""
    story = rolling(model_unavailable_seconds=5.0)
    living(story, 10, model=ModelState.LOADING)
    assert not said(story, AlertRule.MODEL_UNAVAILABLE)
    living(story, 8, model=ModelState.UNAVAILABLE)
    (alert,) = said(story, AlertRule.MODEL_UNAVAILABLE)
    assert "w1" in alert.summary
    living(story, 1)
    assert statuses(story, AlertRule.MODEL_UNAVAILABLE) == [FIRING, RESOLVED]


@pytest.mark.parametrize(("seconds", "told"), [(20.0, True), (0.0, False)])
def test_silence_is_an_alert_where_a_policy_wants_it(seconds: float, told: bool) -> None:
    """A service that was measured and is not any more; zero is never."""
    story = rolling(silence_seconds=seconds)
    living(story, 60)
    assert not said(story, AlertRule.SILENCE)
    story.measure(10, 10)
    living(story, 30)
    assert statuses(story, AlertRule.SILENCE) == ([FIRING] if told else [])
    story.measure(10, 10)
    living(story, 1)
    assert statuses(story, AlertRule.SILENCE) == ([FIRING, RESOLVED] if told else [])


def test_a_record_that_cannot_be_used_is_said_with_its_place() -> None:
    """Counted, with the reason; one alert an hour, however many come (a dead letter in the log)."""
    story = rolling()
    story.raw(b"nonsense")
    at = story.entries[-1].offset
    story.raw(b"nonsense")
    (alert,) = said(story, AlertRule.LOG_UNREADABLE)
    assert f"record {at} of partition 0" in alert.summary
    assert "not a record of the log" in alert.summary
    story.after(3).tick()
    assert of_type(story.outputs, GateStatus)[-1].refused == 2
    living(story, NOTICE_MS // 1000 + 1)
    assert statuses(story, AlertRule.LOG_UNREADABLE)[0] is FIRING
    assert statuses(story, AlertRule.LOG_UNREADABLE)[-1] is RESOLVED


def test_an_unreadable_command_is_told_once() -> None:
    """A crash of the monitor may forward it again; whoever sent it hears of it all the same."""
    story = rolling()
    record = CommandUnreadable(service="shop", partition=1, offset=7, reason="not JSON")
    story.record(record)
    story.record(record)
    (alert,) = said(story, AlertRule.COMMAND_UNREADABLE)
    assert alert.key == "command-unreadable/shop/1/7"
    assert "not JSON" in alert.summary
    story.record(CommandUnreadable(service="shop", partition=1, offset=8, reason="x"))
    assert len(said(story, AlertRule.COMMAND_UNREADABLE)) == 2


def test_every_alert_says_what_to_do() -> None:
    """An alert without a cure is a riddle at night."""
    story = rolling(lag_messages=1, lag_seconds=0.0, silence_seconds=1.0)
    story.measure(300, 300, flags=RowFlag.FALLBACK)
    living(story, 50, revision=1, lag_messages=5, model=ModelState.UNAVAILABLE)
    story.raw(b"nonsense")
    story.silence(10)
    alerts = of_type(story.outputs, AlertEvent)
    assert len({a.rule for a in alerts}) > 5
    assert all(a.cure and a.summary for a in alerts)
