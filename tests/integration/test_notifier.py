"""Alerts arrive: at a real mail server, a real webhook, and what stands for Alertmanager (M63)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from driftgate.errors import Exit
from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import (
    AlertEvent,
    AlertSeverity,
    AlertStatus,
    AlertUndelivered,
    LogPosition,
)
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.notify.channels import AppriseChannel, Channel
from streams.notify.notifier import Notifier
from tests.support.monitoring import admin
from tests.support.processes import Launch, eventually
from tests.support.receivers import Webhook, mailbox, webhook
from tests.support.topics import put
from tests.support.workers import until


def alert(number: int, status: AlertStatus = AlertStatus.FIRING, escalation: int = 0) -> AlertEvent:
    return AlertEvent(
        id=f"{number}",
        key="silence/shop",
        rule="silence",
        service="shop",
        status=status,
        severity=AlertSeverity.CRITICAL,
        summary=f"number {number}",
        cure="look at the producers",
        since_ms=1_800_000_000_000,
        at_ms=1_800_000_000_000 + number,
        cause=LogPosition(0, number),
        escalation=escalation,
    )


async def say(kafka: KafkaSettings, *events: AlertEvent) -> None:
    for event in events:
        await put(kafka, Topic.ALERTS, event.service.encode(), cloudevents.encode_json(event))


def test_alerts_reach_mail_webhook_and_alertmanager(kafka: KafkaSettings, launch: Launch) -> None:
    """Each channel gets each alert once, in order; those for escalations hear of those alone.

    What is no alert is passed over, and what was said while the notifier was away arrives later.
    """
    with mailbox() as mails, webhook() as hook, webhook() as escalations, webhook() as manager:
        variables = {
            "DRIFTGATE_NOTIFY_URLS": f"{mails.url} {hook.apprise_url}",
            "DRIFTGATE_NOTIFY_ESCALATION_URLS": escalations.apprise_url,
            "DRIFTGATE_ALERTMANAGER_URL": manager.url,
        }
        notifier = launch("notifier", kafka=kafka, **variables)
        notifier.wait_for_log("alerts go to", times=4)
        asyncio.run(say(kafka, alert(1)))
        asyncio.run(put(kafka, Topic.ALERTS, b"shop", b"not an alert"))
        eventually("a mail", lambda: mails.mails)
        eventually("the others too", lambda: hook.posted and manager.posted)
        notifier.wait_for_log("is no alert and is passed over", times=4)
        assert notifier.stop() == 0

        asyncio.run(say(kafka, alert(2, AlertStatus.ESCALATED, 1)))
        asyncio.run(say(kafka, alert(3, AlertStatus.RESOLVED, 1)))
        launch("notifier", kafka=kafka, **variables)
        everywhere = (mails.mails, hook.posted, manager.posted)
        eventually("all three everywhere", lambda: all(len(got) == 3 for got in everywhere))
        eventually("escalations", lambda: len(escalations.posted) == 2)

        assert mails.subjects == [
            "[driftgate] shop: silence (CRITICAL)",
            "[driftgate] shop: silence (CRITICAL, escalation 1)",
            "[driftgate] shop: silence (resolved)",
        ]
        assert [post.body["title"] for post in hook.posted] == mails.subjects
        assert [post.body["title"] for post in escalations.posted] == mails.subjects[1:]
        assert {post.path for post in manager.posted} == {"/api/v2/alerts"}
        statuses = [post.body[0]["annotations"]["status"] for post in manager.posted]
        assert statuses == ["firing", "escalated", "resolved"]


async def undelivered(kafka: KafkaSettings) -> Sequence[AlertUndelivered]:
    records = await read_all(kafka, Topic.UNDELIVERED, committed_only=False)
    return [cloudevents.decode_json(record.value, AlertUndelivered) for record in records]


def test_a_channel_that_fails_is_tried_again_and_holds_up_no_other(kafka: KafkaSettings) -> None:
    """After its last attempt the alert stands in the dead letter topic, and the next has its turn.

    The other channel has all of them long before.
    """
    with webhook() as good, webhook() as bad:
        bad.status = 500
        channels = [AppriseChannel(good.apprise_url), AppriseChannel(bad.apprise_url)]
        asyncio.run(one_fails(kafka, channels, good, bad))


async def one_fails(
    kafka: KafkaSettings, channels: Sequence[Channel], good: Webhook, bad: Webhook
) -> None:
    notifier = Notifier(kafka, channels, retry_seconds=(0.1, 0.1))
    task = asyncio.create_task(notifier.run())
    # A channel that is new begins with what is said from then on.
    numbers = iter(range(1, 1000))

    async def heard() -> bool:
        await say(kafka, alert(next(numbers)))
        return bool(good.posted)

    await until("the good channel takes an alert", heard)
    first = await until("a dead letter", lambda: undelivered(kafka))
    assert first[0].channel == channels[1].name
    assert first[0].attempts == 3
    assert "500" in first[0].error
    bad.status = 200
    await until("the bad channel takes one", lambda: bad.posted)
    notifier.stop()
    await task
    given_up = {letter.alert.id for letter in await undelivered(kafka)}
    taken = {post.body["message"].split("\n")[0].removeprefix("number ") for post in bad.posted}
    assert not given_up & taken


def test_a_stop_does_not_wait_for_attempts_to_come(kafka: KafkaSettings) -> None:
    """What was not delivered before it comes after the next start."""
    with webhook() as hook:
        channels = [AppriseChannel(hook.apprise_url) for _ in range(2)]
        asyncio.run(stopped_in_between(kafka, channels, hook))


async def stopped_in_between(
    kafka: KafkaSettings, channels: Sequence[Channel], hook: Webhook
) -> None:
    hook.status = 500
    channel = channels[0]
    notifier = Notifier(kafka, [channel], retry_seconds=(3600.0,))
    task = asyncio.create_task(notifier.run())
    group = f"{kafka.topic_prefix}driftgate-notifier-{channel.name}"
    await until("the channel has a place to begin", lambda: has_offsets(kafka, group))
    await say(kafka, alert(1))
    notifier.stop()
    await task
    hook.status = 200
    again = Notifier(kafka, [channels[1]])
    task = asyncio.create_task(again.run())
    await until("it arrives after all", lambda: hook.posted)
    again.stop()
    await task


async def has_offsets(kafka: KafkaSettings, group: str) -> bool:
    async with admin(kafka) as client:
        return bool(await client.list_consumer_group_offsets(group))


def test_the_test_button_names_who_did_not_answer(kafka: KafkaSettings, launch: Launch) -> None:
    """`driftgate alerts test` says of each channel whether it took the alert, and fails if not."""
    with webhook() as good, webhook() as bad:
        bad.status = 500
        urls = f"{good.apprise_url} {bad.apprise_url}"
        asked = launch("alerts", "test", "--json", kafka=kafka, DRIFTGATE_NOTIFY_URLS=urls)
        assert asked.wait() == Exit.FAILED
        lines = [msgspec.json.decode(li) for li in asked.log.splitlines() if li.startswith("{")]
        assert [line["delivered"] for line in lines] == [True, False]
        assert "500" in lines[1]["error"]
        assert "1 of 2 channels did not take the alert" in asked.log
        assert good.posted[0].body["title"] == "[driftgate] default: test (WARNING)"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "alerts go nowhere: set DRIFTGATE_NOTIFY_URLS"),
        ({"DRIFTGATE_NOTIFY_URLS": "nosuch://x"}, "Apprise cannot use the URL"),
        ({"DRIFTGATE_ALERTMANAGER_URL": "9093"}, "no URL of an Alertmanager"),
    ],
)
def test_channels_that_cannot_be_used_are_refused_at_start(
    variables: dict[str, str], says: str, kafka: KafkaSettings, launch: Launch
) -> None:
    """The notifier does not start, and says what to set."""
    notifier = launch("notifier", kafka=kafka, **variables)
    assert notifier.wait() == Exit.SETTINGS
    assert says in notifier.log
