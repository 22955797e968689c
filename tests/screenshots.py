"""Pictures of the console, to be looked at before it is called done: `make screenshots`.

    python -m tests.screenshots --out screenshots

A broker, a console and services whose story is told; then a browser goes through the scenes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from driftgate.broker import Broker, choose_broker, probe_cluster
from driftgate.topics import ensure_topics
from schemas.alerting import AlertRule
from schemas.control import AlertSeverity, AlertStatus
from schemas.feedback import CaseReason
from schemas.settings import KafkaSettings
from streams.console.process import DATABASE
from streams.console.store import Store
from streams.console.tokens import Role
from tests.support.browser import CURE, Opener, Watched, browser, chromium
from tests.support.console_page import RunningConsole
from tests.support.processes import Driftgate, environment
from tests.support.staging import HOSTILE, STEP_S, Staged, publish

__all__ = ["main"]

WIDE, TALL = 1440, 900


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description="Pictures of the console.")
    parser.add_argument("--out", type=Path, default=Path("screenshots"))
    out: Path = parser.parse_args().out
    if chromium() is None:
        sys.exit(CURE)
    out.mkdir(parents=True, exist_ok=True)
    with choose_broker(os.environ, for_tests=True) as broker, tempfile.TemporaryDirectory() as tmp:
        asyncio.run(_all(broker, Path(tmp), out))


async def _all(broker: Broker, folder: Path, out: Path) -> None:
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"shots-{os.getpid()}.",
        service_partitions=1,
    )
    await ensure_topics(kafka)
    console = _console(kafka, folder / "empty")
    async with browser(console.url) as opener:
        await _empty(console, opener, out)
    console.process.end()

    print("three services are told their last hour (20 s)", file=sys.stderr)
    world = World()
    await publish(kafka, world.outputs, world.cases)
    world.fill(folder / "full" / DATABASE, broker.bootstrap_servers)
    console = _console(kafka, folder / "full")
    async with world.going_on(kafka), browser(console.url) as opener:
        await _scenes(console, opener, out)
    console.process.end()


def _console(kafka: KafkaSettings, folder: Path) -> RunningConsole:
    folder.mkdir(parents=True, exist_ok=True)
    variables = {"DRIFTGATE_CONSOLE_DIR": str(folder), "DRIFTGATE_SERVICE": "shop"}
    process = Driftgate(
        ["console", "--port", "0"], environment(kafka, folder, **variables), folder / "console.log"
    )
    return RunningConsole(process, folder)


class World:
    """Three services: one on its way, one that was rolled back, one that needs a look."""

    def __init__(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.shop = Staged("shop", now_ms=now_ms - 40 * 60_000)
        self.search = Staged("search", now_ms=now_ms - 22 * 60_000, workers=("s1",), seed=3)
        self.chat = Staged("chat", now_ms=now_ms - 16 * 60_000, workers=("c1", "c2", "c3"), seed=5)
        self.outputs = self.shop.rolled_out(39.9)
        self.outputs += self.search.rolled_out(15)
        self.outputs += self.search.go_on(60, error_rate=0.3) + self.search.go_on(340)
        self.outputs += self.chat.rolled_out(11)
        self.outputs += [self.chat.drifted(), *self.chat.go_on(290, relevance=-0.09)]
        self.outputs += self._alerts()
        self.cases = self._cases()

    def _alerts(self) -> list:  # type: ignore[type-arg]
        chat = self.chat
        return [
            chat.alerting(
                AlertRule.WORKER_LOST, AlertSeverity.WARNING,
                "worker c4 of chat was last heard of 42 s ago, without a goodbye",
                "look at its log and start it again; its partitions go to the others", ago_s=312,
            ),
            chat.alerting(
                AlertRule.DRIFT, AlertSeverity.WARNING,
                "relevance has moved down: page_hinkley is 61.2, above 48.5",
                "look at the worst cases: is it another kind of prompts?", ago_s=290,
                status=AlertStatus.ACKNOWLEDGED, actor="ana",
            ),
            chat.alerting(
                AlertRule.LAG, AlertSeverity.CRITICAL,
                "12,400 prompts wait for the 3 live workers of chat, for 94 s",
                "start more analyzers, or raise DRIFTGATE_SHED_LAG_MESSAGES", ago_s=1_340,
                status=AlertStatus.ESCALATED, escalation=1,
            ),
        ]  # fmt: skip

    def _cases(self) -> list:  # type: ignore[type-arg]
        shop = self.shop
        return [
            shop.case(
                "Summarise the quarterly numbers of the three largest regions, and say which one "
                "grows fastest and why.", CaseReason.LOW_RELEVANCE,
            ),
            shop.rated(
                "Write a regular expression for ISO dates, and explain each part of it.",
                "it missed <b>leap years</b>",
            ),
            shop.case(HOSTILE, CaseReason.DISAGREEMENT, CaseReason.NEGATIVE_FEEDBACK),
            shop.case("اكتب قصيدة قصيرة عن البحر والقمر", CaseReason.FALLBACK, domain="general"),
        ]  # fmt: skip

    def fill(self, database: Path, bootstrap_servers: str) -> None:
        """Score distributions of the past: the broker's time stamps are of now."""
        store = Store(database)
        store.begin_cluster(probe_cluster(bootstrap_servers, 10.0).cluster_id)
        for service in (self.shop, self.search, self.chat):
            store.write(service.scores, {})
        store.close()

    @asynccontextmanager
    async def going_on(self, kafka: KafkaSettings) -> AsyncIterator[None]:
        """All services live on while the block runs."""

        async def live() -> None:
            while True:
                for service in (self.shop, self.search, self.chat):
                    if service.now_ms + STEP_S * 1000 <= time.time_ns() // 1_000_000:
                        done = len(service.log)
                        outputs = await asyncio.to_thread(service.go_on, STEP_S)
                        key = service.state.service.encode()
                        log = [(key, value) for _, value in service.log[done:]]
                        await publish(kafka, outputs, log=log)
                await asyncio.sleep(0.3)

        task = asyncio.create_task(live())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _shot(watched: Watched, out: Path, name: str, *, full: bool = True) -> None:
    # Two frames of live data, so that nothing is caught half painted.
    await watched.page.wait_for_timeout(1200)
    await watched.page.screenshot(path=out / f"{name}.png", full_page=full)
    print(out / f"{name}.png", "; ".join(watched.wrong))


async def _empty(console: RunningConsole, opener: Opener, out: Path) -> None:
    watched = await opener.page(width=WIDE, height=TALL)
    await watched.page.goto(console.url)
    await watched.page.wait_for_selector("#token")
    await _shot(watched, out, "sign-in", full=False)
    await watched.sign_in(console.token())
    await watched.until_text("#standing", "No data yet")
    await _shot(watched, out, "empty")


async def _scenes(console: RunningConsole, opener: Opener, out: Path) -> None:
    token = console.token()
    watched = await opener.page(width=WIDE, height=TALL)
    await watched.sign_in(token)
    await watched.until_text("#standing", "Rolling out")
    # Worker rates take a few heartbeats.
    await watched.page.wait_for_timeout(12_000)
    await _shot(watched, out, "first-screen", full=False)
    await _shot(watched, out, "desktop-light")
    await watched.page.click("#actions [data-action=promote]")
    await _shot(watched, out, "dialog", full=False)
    await watched.page.keyboard.press("Escape")
    await watched.page.click("#cases > ul > li:nth-child(2) summary")
    await watched.page.locator("#cases").scroll_into_view_if_needed()
    await _shot(watched, out, "hostile-prompt", full=False)
    for service, name, text in (
        ("search", "rolled-back", "Rolled back"), ("chat", "alerts", "Degraded")
    ):  # fmt: skip
        await watched.page.goto(f"{console.url}/?service={service}&range=1h")
        await watched.until_text("#standing", text)
        await _shot(watched, out, name)
    dark = await opener.page(width=WIDE, height=TALL, scheme="dark")
    await dark.sign_in(token)
    await dark.until_text("#standing", "Rolling out")
    await _shot(dark, out, "desktop-dark")
    phone = await opener.page(width=360, height=740, scale=2.0)
    await phone.sign_in(token, "/?service=chat")
    await phone.until_text("#standing", "Degraded")
    await _shot(phone, out, "phone-first-screen", full=False)
    await _shot(phone, out, "phone")
    tablet = await opener.page(width=900, height=1100)
    await tablet.sign_in(console.token(Role.VIEWER, "vic"))
    await tablet.until_text("#standing", "Rolling out")
    await _shot(tablet, out, "tablet-viewer")
    console.process.kill()
    await watched.until_text("#banner", "Disconnected")
    await _shot(watched, out, "disconnected", full=False)


if __name__ == "__main__":
    main()
