"""Debian's Chromium, driven by Playwright, over a page of the console."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

__all__ = ["CURE", "Watched", "browser", "chromium"]

CURE = "no chromium on the PATH: on Debian `apt-get install chromium`"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()


def chromium() -> str | None:
    """Where it is; None when there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Watched:
    """A page, with everything that it ought not to do.

    Attributes:
        page: as Playwright has it.
        wrong: errors of scripts, breaches of the content security policy, dialogs of the browser,
            and requests to other places.
    """

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)
        page.on("dialog", self._dialog)

    def _said(self, message: Any) -> None:
        # A request that is refused while the console is away is reported by the browser itself.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:")):
            self.wrong.append(f"request: {request.url}")

    async def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    async def sign_in(self, token: str, path: str = "/") -> None:
        """Open the page and sign in by the keyboard."""
        await self.page.goto(f"{self.url}{path}")
        # The field has the focus.
        await self.page.wait_for_selector("#token:focus")
        await self.page.keyboard.type(token)
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_selector(".standing-title")

    async def text(self, selector: str) -> str:
        """What can be read there."""
        return await self.page.inner_text(selector)

    async def until_text(self, selector: str, text: str) -> None:
        """Wait until something can be read somewhere."""
        await self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
            arg=[selector, text],
        )


class Opener:
    """Opens pages of a browser."""

    def __init__(self, found: Browser, url: str) -> None:
        self._browser = found
        self.url = url

    async def page(
        self,
        *,
        width: int = 1440,
        height: int = 900,
        scheme: str = "light",
        scale: float = 1.0,
    ) -> Watched:
        """A page of somebody new, without cookies."""
        context = await self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]  # light or dark
            device_scale_factor=scale,
        )
        context.set_default_timeout(60_000)
        return Watched(context, await context.new_page(), self.url)


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Opener]:
    """A browser while the block runs."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield Opener(found, url)
        finally:
            await found.close()
