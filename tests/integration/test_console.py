"""The console on a real broker: what happens is on the page, and what is asked for is done."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx

from driftgate.broker import EmbeddedKafka
from driftgate.errors import Exit
from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import WindowMetrics
from schemas.log import Command
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.console.tokens import Role
from tests.support.console_page import Page, run_console
from tests.support.monitoring import Traffic, ask
from tests.support.processes import Launch, eventually
from tests.support.staging import Staged, publish, staged_policy
from tests.support.topics import put


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_console_serves_without_a_broker_and_over_its_outages(
    own: EmbeddedKafka, launch: Launch, tmp_path: Path
) -> None:
    """The page is there at once and says what is missing; when the broker comes, so do the data.

    An empty broker gets its topics, and an outage in between is said and gone through.
    """
    kafka = KafkaSettings(
        bootstrap_servers=f"127.0.0.1:{own._wanted_port}", prompt_partitions=2, service_partitions=1
    )
    console = run_console(launch, kafka, tmp_path / "console")
    ready = httpx.get(f"{console.url}/readyz")
    assert ready.status_code == 503
    assert "the broker is away" in ready.text
    assert httpx.get(f"{console.url}/healthz").text == "ok\n"

    async def look() -> None:
        async with Page.of(console) as page:
            pulse = await page.until("it says so", lambda s: s["pulse"]["feed"])
            assert pulse["link"] == "away"
            assert "start it" in pulse["problem"] or str(own._wanted_port) in pulse["problem"]
            assert page.sections["service"]["standing"]["title"] == "No data yet"
            await asyncio.to_thread(own.start)
            await page.until("live", lambda s: s["pulse"]["feed"]["link"] == "live")
            assert (await page.http.get("/readyz")).status_code == 200
            shop = Staged("shop", now_ms=now_ms() - 60_000)
            await publish(kafka, shop.go_on(30))
            await page.until("data", lambda s: s["service"]["measured"])
            await asyncio.to_thread(own.stop)
            await page.until("away", lambda s: s["pulse"]["feed"]["link"] == "away")
            refused = await page.command("pause")
            assert refused.status_code == 504
            assert "was not sent" in refused.json()["error"]
            await asyncio.to_thread(own.start)
            await page.until("live again", lambda s: s["pulse"]["feed"]["link"] == "live")
            measured = page.sections["service"]["measured"]
            await publish(kafka, shop.go_on(30))
            await page.until("more", lambda s: s["service"]["measured"] > measured)
            assert page.connected == 1

    asyncio.run(look())
    assert console.process.stop() == 0
    assert "Traceback" not in console.process.log


def test_a_rollout_is_seen_and_steered(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Every command goes to a real monitor under the token's name, and its answer is on the page.

    A refusal is shown in the monitor's words, and an alert is acknowledged (M46, M52, M63).
    """
    launch("monitor", kafka=kafka)
    console = run_console(launch, kafka, tmp_path / "console")
    asyncio.run(steered(kafka, console))
    assert console.process.stop() == 0
    records = asyncio.run(read_all(kafka, Topic.COMMANDS, committed_only=False))
    ours = [r for r in records if cloudevents.attributes(r.headers).get("source")]
    assert {cloudevents.attributes(r.headers)["source"] for r in ours[1:]} == {"/driftgate/console"}


async def steered(kafka: KafkaSettings, console: Any) -> None:
    async with Page.of(console) as page, Traffic(kafka, "shop").flowing():
        await ask(kafka, Command.START, "shop")
        await page.until("25 %", lambda s: s["service"]["rollout"]["share"] >= 0.25)
        await page.until("gates", lambda s: len(s["gates"]["gates"]) >= 4)
        await page.until("workers", lambda s: s["workers"]["capacity"]["live"] == 2)
        await page.until("both arms", lambda s: s["windows"]["arms"]["candidate"]["prompts"])

        paused = await page.command("pause", reason="incident 812")
        assert paused.status_code == 200, paused.text
        assert paused.json()["decision"]["type"] == "rollout.paused"
        await page.until("paused", lambda s: s["service"]["phase"] == "paused")
        decision = page.sections["service"]["last_decision"]
        assert (decision["actor"], decision["reason"]) == ("ana", "incident 812")

        refused = await page.command("retry")
        assert refused.status_code == 422
        assert refused.json()["error"].startswith("refused: retry: nothing was rolled back")
        stale = await page.command("promote", revision=1)
        assert stale.status_code == 409

        resumed = await page.command("resume")
        assert resumed.status_code == 200, resumed.text
        await page.until("at 50 %", lambda s: s["service"]["rollout"]["share"] == 0.5)
        aborted = await page.command("abort")
        assert aborted.status_code == 200, aborted.text
        await page.until("back", lambda s: s["service"]["standing"]["title"] == "Rolled back")
        line = page.sections["service"]["rollouts"][0]
        assert [step["share"] for step in line["steps"]] == [0.0, 0.25, 0.5]
        assert line["phase"] == "rolled_back"

        await put(kafka, Topic.COMMANDS, b"shop", b"no command")
        alert = await page.until("an alert", lambda s: s["alerts"]["open"][0])
        acknowledged = await page.command("acknowledge", alert_key=alert["key"])
        assert acknowledged.status_code == 200, acknowledged.text
        await page.until("taken", lambda s: s["alerts"]["open"][0]["status"] == "acknowledged")
        assert page.sections["alerts"]["open"][0]["actor"] == "ana"
        unknown = await page.command("acknowledge", alert_key="no/such")
        assert unknown.status_code == 422
        assert "'no/such' is open" in unknown.json()["error"]

    async with Page.of(console, Role.VIEWER) as page:
        await page.until("a page", lambda s: s["service"])
        assert (await page.command("abort")).status_code == 403


def counted(folder: Path) -> dict[str, Any]:
    """What a console has kept."""
    with sqlite3.connect(folder / "console.db") as db:
        rows: dict[str, Any] = {
            "windows": db.execute("SELECT COUNT(*) FROM window_points").fetchone()[0],
            "scored": db.execute("SELECT SUM(rows) FROM score_counts").fetchone()[0],
        }
        rows["decisions"] = sorted(
            key for (key,) in db.execute("SELECT key FROM items WHERE kind = 'decision'")
        )
    return rows


def test_nothing_is_lost_or_counted_twice_over_restarts(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Killed in the middle, away for a while, with an empty database: the history is the same."""
    shop = Staged("shop", now_ms=now_ms() - 15 * 60_000)
    first = shop.rolled_out(6, staged_policy(60.0))
    log = [(b"shop", value) for _, value in shop.log]
    asyncio.run(publish(kafka, first, log=log))
    folder = tmp_path / "console"
    console = run_console(launch, kafka, folder)
    console.process.wait_for_log("caught up with the topics")
    eventually("something is kept", lambda: counted(folder)["windows"])
    console.process.kill()

    done = len(shop.log)
    second = shop.go_on(60) + shop.go_on(90, error_rate=0.5) + shop.go_on(30)
    log = [(b"shop", value) for _, value in shop.log[done:]]
    # Batches that are delivered twice are counted once.
    asyncio.run(publish(kafka, second, log=log[:8] + log))
    console = run_console(launch, kafka, folder)
    console.process.wait_for_log("caught up with the topics")
    windows = [
        o.event
        for o in shop.outputs
        if isinstance(o.event, WindowMetrics) and o.event.final and o.event.segment == "all"
    ]
    decisions = sorted(o.event.id for o in shop.outputs if o.topic is Topic.CONTROL)
    scored = sum(score.rows for score in shop.scores)
    eventually("all decisions", lambda: counted(folder)["decisions"] == decisions)
    eventually("all windows", lambda: counted(folder)["windows"] == len(windows))
    eventually("each row once", lambda: counted(folder)["scored"] == scored)
    assert console.process.stop() == 0

    fresh = tmp_path / "fresh"
    console = run_console(launch, kafka, fresh)
    console.process.wait_for_log("caught up with the topics")
    eventually("the same history", lambda: counted(fresh)["decisions"] == decisions)
    eventually("all of it", lambda: counted(fresh)["windows"] == len(windows))
    eventually("scores too", lambda: counted(fresh)["scored"] == scored)
    asyncio.run(shown(console, shop.now_ms))


async def shown(console: Any, to_ms: int) -> None:
    async with Page.of(console) as page:
        await page.until("rolled back", lambda s: s["service"]["phase"] == "rolled_back")
        found = await page.history(to_ms - 20 * 60_000, to_ms + 60_000)
        assert found["reliability"]["rollbacks"] == 1
        assert set(found["windows"]) == {"control", "candidate"}
        assert "semantic-errors" in found["gates"]
        kinds = {marker["kind"] for marker in found["markers"]}
        assert {"rollout.started", "gate.breached", "rollout.rolled_back"} <= kinds


def test_records_that_are_rubbish_are_passed_over(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Bytes that are no event stop nothing: they are counted, and what follows is shown."""
    for topic in (Topic.CONTROL, Topic.METRICS, Topic.ALERTS, Topic.CURATED, Topic.ROLLOUT):
        asyncio.run(put(kafka, topic, b"shop", b"\xff\x00 rubbish"))
    asyncio.run(put(kafka, Topic.LOG, b"shop", b"heartbeat rubbish"))
    shop = Staged("shop", now_ms=now_ms() - 60_000)
    asyncio.run(publish(kafka, shop.go_on(50)))
    console = run_console(launch, kafka, tmp_path / "console")

    async def look() -> None:
        async with Page.of(console) as page:
            await page.until("data", lambda s: s["service"]["measured"])
            metrics = (await page.http.get("/metrics")).text
            assert "driftgate_console_undecodable_records_total 6.0" in metrics
            assert 'driftgate_build_info{role="console"' in metrics

    asyncio.run(look())
    assert console.process.log.count("cannot be read and is passed over") == 6


def test_an_open_page_does_not_hold_up_the_end(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """SIGTERM ends the console although somebody is looking; the page connects again by itself."""
    folder = tmp_path / "console"
    console = run_console(launch, kafka, folder)
    port = console.url.rpartition(":")[2]

    async def look() -> None:
        async with Page.of(console) as page:
            await page.until("a page", lambda s: s["service"])
            assert await asyncio.to_thread(console.process.stop) == 0
            again = launch(
                "console", "--port", port, kafka=kafka, DRIFTGATE_CONSOLE_DIR=str(folder)
            )
            await asyncio.to_thread(again.wait_for_log, "the console is at")
            page.sections.clear()
            await page.until("the page again", lambda s: s["service"])
            assert page.connected == 2

    asyncio.run(look())


def test_tokens_are_made_listed_and_taken_back(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """A token is printed once; the list has no secret; a broken file is said with the cure."""
    folder = str(tmp_path / "console")

    def run(*arguments: str) -> Any:
        done = launch("token", *arguments, kafka=kafka, DRIFTGATE_CONSOLE_DIR=folder)
        done.wait()
        return done

    assert "no tokens yet" in run("list").log
    made = run("create", "--role", "operator", "--name", "ana", "--days", "1", "--json")
    token = json.loads(made.log)
    assert token["token"].startswith(f"dgc_{token['id']}_")
    shown_ = run("create", "--role", "viewer", "--name", "vic").log
    assert "it is shown this once" in shown_
    listed = run("list", "--json").log
    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["ana", "vic"]
    assert token["token"][13:] not in listed
    assert run("revoke", token["id"]).code == 0
    assert json.loads(run("list", "--json").log.splitlines()[0])["state"] == "revoked"
    assert run("revoke", "nobody").code == Exit.SETTINGS
    assert run("create", "--role", "king", "--name", "x").code == Exit.USAGE
    assert run("create", "--role", "viewer", "--name", " ").code == Exit.SETTINGS
    (tmp_path / "console" / "tokens.json").write_text("broken")
    broken = run("list")
    assert broken.code == Exit.SETTINGS
    assert "make new tokens" in broken.log


def test_an_address_that_is_taken_is_said(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """A second console on the same port ends, and says which options there are."""
    first = run_console(launch, kafka, tmp_path / "one")
    port = first.url.rpartition(":")[2]
    second = launch(
        "console", "--port", port, kafka=kafka, DRIFTGATE_CONSOLE_DIR=str(tmp_path / "two")
    )
    assert second.wait() == Exit.SETTINGS
    assert "choose another with --host and --port" in second.log
    assert "Traceback" not in second.log
