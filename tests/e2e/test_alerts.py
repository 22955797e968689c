"""A gate breaks, people hear of it, nobody answers, it recovers: all by real processes (M63)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from driftgate.errors import Exit
from schemas.alerting import AlertRules
from schemas.log import Command, RowFlag
from schemas.policy import Stage
from schemas.settings import KafkaSettings
from tests.support.folding import gate, policy
from tests.support.monitoring import QUICK, Traffic, as_undisturbed, ask
from tests.support.processes import Launch
from tests.support.receivers import mailbox, webhook
from tests.support.workers import until

POLICY = policy(
    # Its limit is at a rate that recovers within seconds of good rows.
    gate("cache-hits", objective=">= 0.5", warmup_seconds=0.0, min_samples=40),
    stages=[
        Stage(percent=50.0, min_seconds=3000.0, max_seconds=9000.0),
        Stage(percent=100.0, min_seconds=3600.0),
    ],
    windows=QUICK.windows,
    alerts=AlertRules(escalate_seconds=[1.0, 30.0]),
)


def test_a_breach_reaches_people_is_escalated_and_resolved(
    kafka: KafkaSettings, launch: Launch
) -> None:
    """By mail and webhook: the breach, its escalation, and its end when the gate recovers.

    The other alert of the same pause is acknowledged, and so it is not escalated any more.
    """
    with mailbox() as mails, webhook() as hook, webhook() as second_line:
        notifier = launch(
            "notifier",
            kafka=kafka,
            DRIFTGATE_NOTIFY_URLS=f"{mails.url} {hook.apprise_url}",
            DRIFTGATE_NOTIFY_ESCALATION_URLS=second_line.apprise_url,
        )
        notifier.wait_for_log("alerts go to", times=3)
        launch("monitor", kafka=kafka)

        def subjects() -> list[str]:
            return [s for s in mails.subjects if "gate-breached" in s]

        async def run() -> None:
            traffic = Traffic(kafka, "shop")
            async with traffic.flowing():
                await ask(kafka, Command.START, "shop", policy=POLICY)
                traffic.candidate = {"flags": RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP}
                await until("a mail about the breach", subjects)
                acked = launch(
                    "alerts", "ack", "rollout-paused/shop", "--service", "shop",
                    "--actor", "eva", "--json", kafka=kafka,
                )  # fmt: skip
                assert await asyncio.to_thread(acked.wait) == Exit.OK, acked.log
                said: dict[str, Any] = msgspec.json.decode(acked.log.splitlines()[-1])
                assert (said["status"], said["actor"]) == ("acknowledged", "eva")
                await until("the last escalation", lambda: len(subjects()) == 3)
                traffic.candidate = {}
                await until("its end", lambda: len(subjects()) == 4)
            await as_undisturbed(kafka)

        asyncio.run(run())
        assert subjects() == [
            "[driftgate] shop: gate-breached (WARNING)",
            "[driftgate] shop: gate-breached (WARNING, escalation 1)",
            "[driftgate] shop: gate-breached (WARNING, escalation 2)",
            "[driftgate] shop: gate-breached (resolved)",
        ]
        titles = [post.body["title"] for post in hook.posted]
        assert [t for t in titles if "gate-breached" in t] == subjects()
        escalated = [post.body["title"] for post in second_line.posted]
        assert [t for t in escalated if "gate-breached" in t] == subjects()[1:]
        paused = [title for title in titles if "rollout-paused" in title]
        assert paused[-1] == "[driftgate] shop: rollout-paused (acknowledged)"
