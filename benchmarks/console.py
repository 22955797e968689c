"""How soon the console shows something, and how soon it shows what happens.

    python -m benchmarks.console --json
    python -m benchmarks.console --events 60

A Kafka broker, `driftgate console` as a process, and Debian's Chromium with empty caches, all on
this machine. `first_paint_ms` is First Contentful Paint of the page, by the browser's own paint
timing, over several loads by new browser contexts; `board_ms` is from a reload until the verdict of
a signed-in page is drawn. `event_ms` is from the moment before an event is handed to Kafka's
producer until the first animation frame after the page has its text, by the clock of this machine;
a rollout state and an alert are sent in turn, into a page that shows a whole service.
`bytes_gzipped` is what the browser was sent for the page and all it loads, before data. Percentiles
are of all loads and all events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import describe_machine
from driftgate.broker import Broker, choose_broker
from driftgate.topics import ensure_topics
from schemas.alerting import AlertRule
from schemas.control import AlertSeverity
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.kafka_io import KafkaIO
from streams.outputs import Output
from tests.support.browser import CURE, Opener, Watched, browser, chromium
from tests.support.console_page import RunningConsole
from tests.support.processes import Driftgate, environment
from tests.support.staging import Staged, publish, staged_policy

__all__ = ["main"]

_SEEN = """([selector, text]) => new Promise((done) => {
  const look = () => {
    if (document.querySelector(selector)?.innerText.includes(text)) {
      requestAnimationFrame(() => done(performance.timeOrigin + performance.now()));
      return true;
    }
    return false;
  };
  if (look()) return;
  const observer = new MutationObserver(() => look() && observer.disconnect());
  observer.observe(document.body, {subtree: true, childList: true, characterData: true});
})"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Paint, push and size of the console.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--loads", type=int, default=15)
    parser.add_argument("--events", type=int, default=40)
    asked = parser.parse_args()
    if chromium() is None:
        sys.exit(CURE)
    with choose_broker(os.environ, for_tests=True) as broker, tempfile.TemporaryDirectory() as tmp:
        found = asyncio.run(_measured(broker, Path(tmp), asked.loads, asked.events))
    found = {"machine": describe_machine(), "loads": asked.loads, "events": asked.events, **found}
    print(json.dumps(found, indent=None if asked.json else 2))


async def _measured(broker: Broker, folder: Path, loads: int, events: int) -> dict[str, Any]:
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"bench-{os.getpid()}.",
        service_partitions=1,
    )
    await ensure_topics(kafka)
    print("a service is told its last ten minutes", file=sys.stderr)
    shop = Staged("shop", now_ms=time.time_ns() // 1_000_000 - 10 * 60_000)
    outputs = shop.rolled_out(9.9, staged_policy(60.0))
    await publish(kafka, outputs, log=[(b"shop", value) for _, value in shop.log])
    variables = {"DRIFTGATE_CONSOLE_DIR": str(folder), "DRIFTGATE_SERVICE": "shop"}
    process = Driftgate(
        ["console", "--port", "0"], environment(kafka, folder, **variables), folder / "console.log"
    )
    try:
        console = RunningConsole(process, folder)
        process.wait_for_log("caught up with the topics")
        async with browser(console.url) as opener:
            found = await _loads(console, opener, loads)
            watched = await opener.page()
            await watched.sign_in(console.token())
            await watched.until_text("#gates", "latency-p95")
            found |= _spread("event_ms", await _events(kafka, shop, watched, events))
    finally:
        process.end()
    return found


async def _loads(console: RunningConsole, opener: Opener, loads: int) -> dict[str, Any]:
    token = console.token()
    paints, boards, sizes = [], [], []
    for number in range(loads):
        print(f"load {number + 1}/{loads}", file=sys.stderr)
        watched = await opener.page()
        sizes.append(await _size(watched))
        paints.append(await _first_paint(watched))
        await watched.sign_in(token)
        began = time.monotonic()
        await watched.page.reload()
        await watched.page.wait_for_selector(".standing-title")
        boards.append((time.monotonic() - began) * 1000)
        await watched.context.close()
    return {
        **_spread("first_paint_ms", paints),
        **_spread("board_ms", boards),
        "bytes_gzipped": max(sizes),
    }


async def _size(watched: Watched) -> int:
    await watched.page.goto(watched.url)
    await watched.page.wait_for_selector("#token")
    transferred: int = await watched.page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter((e) => !e.name.includes('/api/')).reduce((sum, e) => sum + e.transferSize, 0)"
    )
    return transferred


async def _first_paint(watched: Watched) -> float:
    found: float = await watched.page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    return found


async def _events(kafka: KafkaSettings, shop: Staged, watched: Watched, events: int) -> list[float]:
    io = KafkaIO(kafka)
    found = []
    try:
        for number in range(events):
            print(f"event {number + 1}/{events}", file=sys.stderr)
            output, selector, text = _event(shop, number)
            seen = asyncio.create_task(watched.page.evaluate(_SEEN, [selector, text]))
            # Not in step with the pulse, which comes every two seconds.
            await asyncio.sleep(0.3 + 0.137 * (number % 7))
            sent_ms = time.time_ns() / 1e6
            await io.publish([output], 0)
            found.append(await seen - sent_ms)
    finally:
        await io.stop()
    return found


def _event(shop: Staged, number: int) -> tuple[Output, str, str]:
    shop.now_ms = time.time_ns() // 1_000_000
    if number % 2:
        alert = shop.alerting(
            AlertRule.LAG, AlertSeverity.WARNING, f"event {number}", "nothing", ago_s=0
        )
        return alert, "#alerts", f"event {number}"
    rollout = msgspec.structs.replace(shop.state.rollout, revision=1000 + number, at_ms=shop.now_ms)
    told = shop.alerting(AlertRule.LAG, AlertSeverity.WARNING, "", "", ago_s=0)
    output = told._replace(topic=Topic.ROLLOUT, event=rollout, id=f"r-{number}")
    return output, "#traffic", str(1000 + number)


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"{name}_p50": round(ordered[len(ordered) // 2], 1),
        f"{name}_p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        f"{name}_max": round(ordered[-1], 1),
    }


if __name__ == "__main__":
    main()
