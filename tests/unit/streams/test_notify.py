"""How alerts read, and which channel hears of what (M63)."""

from __future__ import annotations

import msgspec
import pytest

from schemas.control import AlertEvent, AlertSeverity, AlertStatus, LogPosition
from streams.errors import NotifySettingError
from streams.notify.channels import AlertmanagerChannel, AppriseChannel, open_channels
from streams.notify.messages import alertmanager_alert, message_of

FIRING = AlertEvent(
    id="1",
    key="gate-breached/shop/coherence",
    rule="gate-breached",
    service="shop",
    status=AlertStatus.FIRING,
    severity=AlertSeverity.CRITICAL,
    summary="coherence mean is 0.4, limit 0.7",
    cure="look at the worst cases",
    since_ms=1_800_000_000_000,
    at_ms=1_800_000_000_000,
    cause=LogPosition(0, 7),
)
ACKNOWLEDGED = msgspec.structs.replace(FIRING, status=AlertStatus.ACKNOWLEDGED, actor="ann")
ESCALATED = msgspec.structs.replace(FIRING, status=AlertStatus.ESCALATED, escalation=2)
RESOLVED = msgspec.structs.replace(
    FIRING, status=AlertStatus.RESOLVED, at_ms=FIRING.at_ms + 60_000, escalation=2
)


@pytest.mark.parametrize(
    ("event", "title", "body", "urgent"),
    [
        (FIRING, "gate-breached (CRITICAL)", "What to do: look at the worst cases", True),
        (ACKNOWLEDGED, "(acknowledged)", "Acknowledged by ann", False),
        (ESCALATED, "CRITICAL, escalation 2", "Nobody has acknowledged it.", True),
        (RESOLVED, "(resolved)", "said at 2027-01-15 08:01:00 UTC", False),
    ],
)
def test_each_status_reads_as_what_it_is(
    event: AlertEvent, title: str, body: str, urgent: bool
) -> None:
    """A message says what happened, where, and what to do now."""
    message = message_of(event)
    assert message.title.startswith("[driftgate] shop: ")
    assert title in message.title
    assert body in message.body
    assert event.summary in message.body
    assert message.urgent is urgent


def test_only_what_is_open_asks_to_be_acknowledged() -> None:
    """The command to acknowledge stands where it can be used."""
    asks = {
        event.status: f"driftgate alerts ack {event.key} --service shop" in message_of(event).body
        for event in (FIRING, ACKNOWLEDGED, ESCALATED, RESOLVED)
    }
    assert [status for status, asked in asks.items() if asked] == ["firing", "escalated"]


def test_alertmanager_knows_an_alert_by_its_labels() -> None:
    """Labels are the same in every status; it ends when it is resolved, and not before."""
    events = [alertmanager_alert(e) for e in (FIRING, ACKNOWLEDGED, ESCALATED, RESOLVED)]
    assert all(event["labels"] == events[0]["labels"] for event in events)
    assert all(event["startsAt"] == "2027-01-15T08:00:00.000+00:00" for event in events)
    assert [event["endsAt"][:4] for event in events] == ["2028", "2028", "2028", "2027"]
    assert events[-1]["endsAt"] == "2027-01-15T08:01:00.000+00:00"


def test_an_escalation_channel_hears_of_escalations_and_their_end() -> None:
    """Who is called last is not called first."""
    first = AppriseChannel("json://127.0.0.1:9/first")
    last = AppriseChannel("json://127.0.0.1:9/last", escalation=True)
    events = (FIRING, ACKNOWLEDGED, ESCALATED, RESOLVED)
    assert [first.wants(e) for e in events] == [True] * 4
    assert [last.wants(e) for e in events] == [False, False, True, True]
    assert first.name != last.name


def test_a_channel_is_named_without_its_secrets() -> None:
    """A name goes into logs, groups and dead letters; a URL may hold a password."""
    url = "mailtos://user:hunter2@example.org?to=oncall@example.org"
    (channel,) = open_channels([url, url], [], None)
    assert channel.name.startswith("mailtos-")
    assert "hunter2" not in channel.name
    assert "user" not in channel.name


@pytest.mark.parametrize("url", ["hunter2", "nosuch://hunter2@example.org"])
def test_a_url_that_apprise_does_not_know_is_refused(url: str) -> None:
    """The message says what to look at, and keeps what may be a secret to itself."""
    with pytest.raises(NotifySettingError, match="Apprise") as caught:
        AppriseChannel(url)
    assert "@" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:9093", "ftp://host", "http://"])
def test_an_alertmanager_needs_a_url(url: str) -> None:
    """A refusal shows one that would do."""
    with pytest.raises(NotifySettingError, match=r"http://127\.0\.0\.1:9093"):
        AlertmanagerChannel(url)
