"""The console in a real browser over a real broker: seen, steered, attacked, cut off."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from schemas import cloudevents
from schemas.control import RolloutRolledBack
from schemas.log import Command
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.console.tokens import Role
from streams.outputs import Output
from tests.support.browser import CURE, Watched, browser, chromium
from tests.support.console_page import RunningConsole, run_console
from tests.support.monitoring import Traffic, ask
from tests.support.processes import Launch
from tests.support.staging import HOSTILE, Staged, publish
from tests.support.topics import put, read

pytestmark = pytest.mark.skipif(chromium() is None, reason=CURE)

WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


ABORT = """async () => {
  const session = await (await fetch("/api/session")).json();
  const answer = await fetch("/api/commands", {method: "POST",
    headers: {"content-type": "application/json", "x-csrf-token": session.csrf},
    body: JSON.stringify({service: "shop", command: "abort", revision: 0})});
  return [answer.status, (await answer.json()).error];
}"""
"""A command by the page's own means, as a script in it would send it."""


async def confirm(watched: Watched, action: str, reason: str) -> None:
    """Ask for something by the keyboard: the button, what will happen, why, yes."""
    page = watched.page
    await page.focus(f"#actions [data-action={action}]")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#dialog[open]")
    # A key that is pressed once too often acts on nothing.
    await page.keyboard.press("Enter")
    assert await page.is_visible("#dialog[open]")
    await page.keyboard.type(reason)
    await page.focus("#dialog button[type=submit]")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#dialog:not([open])", state="attached")


async def test_an_operator_follows_and_steers_a_rollout(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Empty, alive, at 50 %, promoted, aborted, an alert acknowledged: each shows by itself.

    All of it without a reload, by the keyboard, and under the name of the token (M52, M54, M63).
    """
    launch("monitor", kafka=kafka)
    console = await asyncio.to_thread(run_console, launch, kafka, tmp_path / "console")
    token = await asyncio.to_thread(console.token)
    async with browser(console.url) as opener:
        watched = await opener.page()
        page = watched.page
        await watched.sign_in(token)
        await watched.until_text("#standing", "No data yet")
        assert "driftgate monitor" in await watched.text("#traffic")
        assert not await page.is_visible("#tiles")
        assert "driftgate rollout start" in await watched.text("#traffic")
        assert await page.locator("#actions button").count() == 0

        async with Traffic(kafka, "shop").flowing():
            await watched.until_text("#standing", "Healthy")
            await ask(kafka, Command.START, "shop")
            # There it stays: it must not advance while somebody promotes it.
            await watched.until_text("#traffic", "semantic 50")
            await watched.until_text("#gates", "semantic-errors")
            await watched.until_text("#workers", "w2")
            await watched.until_text("#tiles", "prompts/s")
            assert await page.locator("#tiles .tile").count() == 6
            assert await page.get_attribute("#standing", "aria-live") == "polite"

            await confirm(watched, "promote", "looks well")
            await watched.until_text("#traffic", "semantic 100")
            await watched.until_text("#decision", "looks well")
            assert "ana" in await watched.text("#decision")
            await confirm(watched, "abort", "incident 812")
            await watched.until_text("#standing", "Rolled back")
            await watched.until_text("#decisions", "incident 812")
            assert await page.locator("#actions [data-action=retry]").count() == 1
            await watched.until_text("#rollouts", "rolled back")

            await put(kafka, Topic.COMMANDS, b"shop", b"no command")
            await page.click("#alerts [data-action=acknowledge]")
            await page.click("#dialog button[type=submit]")
            await watched.until_text("#alerts", "acknowledged by ana")
        assert watched.wrong == []
    events = [
        cloudevents.decode_json(r.value, cloudevents.CONTROL_EVENT)
        for r in await read(kafka, Topic.CONTROL)
    ]
    [rolled_back] = [e for e in events if isinstance(e, RolloutRolledBack)]
    assert (rolled_back.actor, rolled_back.reason) == ("ana", "incident 812")


def told() -> tuple[Staged, list[Output]]:
    """The story of a service that is being rolled out."""
    shop = Staged("shop", now_ms=time.time_ns() // 1_000_000 - 5 * 60_000)
    return shop, shop.rolled_out(4.8)


async def staged(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> tuple[RunningConsole, Staged]:
    """A console over a service whose story is told, without a monitor."""
    shop, outputs = await asyncio.to_thread(told)
    cases = [shop.case(HOSTILE), shop.rated(HOSTILE, HOSTILE)]
    await publish(kafka, outputs, cases, [(b"shop", value) for _, value in shop.log])
    console = await asyncio.to_thread(run_console, launch, kafka, tmp_path / "console")
    return console, shop


async def test_a_hostile_prompt_is_text(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Markup, scripts and tricks with the direction of text are shown as what they are.

    So are a hostile service in the address and a hostile worker.
    """
    console, _ = await staged(kafka, launch, tmp_path)
    token = await asyncio.to_thread(console.token)
    async with browser(console.url) as opener:
        watched = await opener.page()
        page = watched.page
        await watched.sign_in(token)
        await watched.until_text("#cases", "<script>window.hacked=1</script>")
        await page.click("#cases details summary")
        shown = await watched.text("#cases")
        assert '<img src=x onerror="window.hacked=1">' in shown
        assert "⟦U+202E⟧gnp.exe⟦U+202C⟧" in shown
        assert "\u202e" not in shown
        assert await page.locator("#cases img, #cases script").count() == 0
        hostile = "<img src=x onerror=window.hacked=1>"
        await page.goto(f"{console.url}/?service={hostile}&range=15m")
        await watched.until_text("#standing", "No data yet")
        assert hostile in await page.input_value("#service")
        assert await page.evaluate("window.hacked") is None
        # Even a script that is already in the page cannot make markup of a string.
        refused = await page.evaluate(
            "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }"
        )
        assert refused == "TypeError"
        watched.wrong = [w for w in watched.wrong if "TrustedHTML" not in w]
        assert watched.wrong == []


async def test_roles_and_revoked_tokens(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """A viewer sees all and has nothing to press; a wrong or revoked token lets nobody in."""
    console, _ = await staged(kafka, launch, tmp_path)
    token = await asyncio.to_thread(console.token, Role.VIEWER, "vic")
    async with browser(console.url) as opener:
        watched = await opener.page()
        page = watched.page
        await page.goto(console.url)
        await page.fill("#token", "wrong")
        await page.keyboard.press("Enter")
        await watched.until_text("#sign-in", "this token is not valid")
        assert not await page.is_visible("#board")
        await watched.sign_in(token)
        await watched.until_text("#cases", "score")
        assert await page.locator("#board [data-action=abort]").count() == 0
        assert "You may look" in await watched.text("#actions")
        status, error = await page.evaluate(ABORT)
        assert status == 403
        assert "vic may look and not act" in error
        cookies = await watched.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        assert await page.evaluate("document.cookie") == ""
        await asyncio.to_thread(console.revoke_last)
        await page.wait_for_selector("#sign-in:not([hidden]) #token")
        assert not await page.is_visible("#board")
        assert watched.wrong == []


async def test_a_page_that_is_cut_off_says_so_and_comes_back(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """While the console is away the page says since when; then it shows what has happened."""
    console, shop = await staged(kafka, launch, tmp_path)
    token = await asyncio.to_thread(console.token)
    async with browser(console.url) as opener:
        watched = await opener.page()
        page = watched.page
        await watched.sign_in(token)
        await watched.until_text("#link", "live")
        assert await page.is_hidden("#banner")
        await asyncio.to_thread(console.process.kill)
        await watched.until_text("#banner", "Disconnected from the console since")
        assert await page.locator("#actions button:enabled").count() == 0
        await publish(kafka, shop.go_on(60, error_rate=0.5))
        port = console.url.rpartition(":")[2]
        folder = str(tmp_path / "console")
        launch("console", "--port", port, kafka=kafka, DRIFTGATE_CONSOLE_DIR=folder)
        await watched.until_text("#standing", "Rolled back")
        await page.wait_for_selector("#banner", state="hidden")
        await watched.until_text("#decisions", "Rolled back to blue")
        assert watched.wrong == []


async def test_phones_dark_rooms_and_keyboards(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """At 360 pixels nothing scrolls sideways; dark follows the system and the button.

    The range stands in the address, has keys, and goes back with the browser.
    """
    console, _ = await staged(kafka, launch, tmp_path)
    token = await asyncio.to_thread(console.token)
    async with browser(console.url) as opener:
        phone = await opener.page(width=360, height=740)
        await phone.sign_in(token)
        await phone.until_text("#cases", "<script>")
        await phone.until_text("#gates", "latency-p95")
        assert await phone.page.evaluate(WIDE) <= 0
        await phone.page.click("#gates [data-action=why]")
        await phone.page.click("#actions [data-action=abort]")
        await phone.page.wait_for_selector("#dialog[open]")
        assert await phone.page.evaluate(WIDE) <= 0

        watched = await opener.page(scheme="dark")
        page = watched.page
        await watched.sign_in(token, "/?service=shop&range=6h")
        background = "getComputedStyle(document.documentElement).backgroundColor"
        dark = await page.evaluate(background)
        assert max(int(part) for part in dark[4:-1].split(",")) < 40
        await page.keyboard.press("t")
        light = await page.evaluate(background)
        assert min(int(part) for part in light[4:-1].split(",")) > 200

        pressed = ".ranges [aria-pressed=true]"
        assert await watched.text(pressed) == "6 h"
        await page.keyboard.press("1")
        assert await watched.text(pressed) == "15 min"
        assert "range=15m" in page.url
        await page.go_back()
        assert await watched.text(pressed) == "6 h"
        await page.locator("#c-traffic").scroll_into_view_if_needed()
        box = await page.locator("#c-traffic .u-over").bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + 80, box["y"] + 40)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 200, box["y"] + 40)
        await page.mouse.up()
        await page.wait_for_url("**from=*")
        await page.keyboard.press("?")
        await page.wait_for_selector("#dialog[open] kbd")
        await page.keyboard.press("Escape")
        await page.keyboard.press("g")
        focused = await page.evaluate("document.activeElement.id")
        assert focused == "gates-title"
        assert watched.wrong == []
        assert phone.wrong == []
