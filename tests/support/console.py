"""A console's web application without a broker: a real database, real tokens, a monitor to be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from schemas.control import AlertEvent, ControlEvent, RolloutAdvanced
from schemas.log import Command, OperatorCommand
from streams.console.gatekeeper import Gatekeeper
from streams.console.hub import Hub
from streams.console.model import ConsoleModel
from streams.console.sign_in import Attempts
from streams.console.store import Store
from streams.console.token_file import TokenFile
from streams.console.tokens import Role, Token
from streams.console.views import encode_section
from streams.console.web import Counts, Parts, create_web
from tests.support.folding import T0_MS
from tests.support.samples import sample

__all__ = ["BASE", "Desk", "cookie_flags"]

BASE = "http://localhost:8765"


class Desk:
    """The application, and browsers that look at it.

    Args:
        folder: of its database and tokens.
    """

    def __init__(self, folder: Path) -> None:
        self.now_ms = T0_MS
        self.model = ConsoleModel()
        self.store = Store(folder / "console.db")
        self.tokens = TokenFile(folder / "tokens.json")
        self.hub = Hub(self._render, lambda: b'{"now_ms":0,"feed":{}}', pulse_s=0.05)
        self.asked: list[OperatorCommand] = []
        self.answer: Callable[[OperatorCommand], Awaitable[ControlEvent | AlertEvent]] = self._obey
        self.trouble: str | None = None
        gatekeeper = Gatekeeper(
            self.tokens,
            self.store,
            session_ms=3_600_000,
            now_ms=lambda: self.now_ms,
            attempts=Attempts(most=3),
        )
        self.web = create_web(
            Parts(
                model=self.model,
                store=self.store,
                hub=self.hub,
                gatekeeper=gatekeeper,
                ask=self._ask,
                default_service="shop",
                ready=lambda: self.trouble,
                metrics=partial(generate_latest, CollectorRegistry()),
                counts=Counts(),
            )
        )

    def _render(self, section: Any, service: str) -> bytes:
        return encode_section(section, self.model, service, self.now_ms, most_workers=4)

    async def _ask(self, asked: OperatorCommand) -> ControlEvent | AlertEvent:
        self.asked.append(asked)
        return await self.answer(asked)

    async def _obey(self, asked: OperatorCommand) -> ControlEvent | AlertEvent:
        """What a monitor would say."""
        if asked.command is Command.ACKNOWLEDGE:
            return msgspec.structs.replace(sample(AlertEvent), actor=asked.actor)
        return msgspec.structs.replace(sample(RolloutAdvanced), command_id=asked.id)

    async def token(self, role: Role = Role.OPERATOR, name: str = "ana") -> str:
        """A new token; it lives from when the test runs."""
        text, _ = await asyncio.to_thread(self.tokens.create, name=name, role=role, days=3650.0)
        return text

    async def kept(self) -> list[Token]:
        """What is kept of the tokens."""
        return await asyncio.to_thread(self.tokens.tokens)

    async def revoke_last(self) -> None:
        """Take the newest token back."""
        last = (await self.kept())[-1]
        await asyncio.to_thread(self.tokens.revoke, last.id)

    def browser(self, base: str = BASE, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A browser with no cookies yet."""
        transport = httpx.ASGITransport(app=self.web, client=(address, 50_000))
        return httpx.AsyncClient(transport=transport, base_url=base, timeout=10.0)

    async def signed_in(self, role: Role = Role.OPERATOR, name: str = "ana") -> httpx.AsyncClient:
        """A browser that has signed in, and knows its CSRF token."""
        browser = self.browser()
        await self.sign_in(browser, await self.token(role, name))
        return browser

    async def sign_in(self, browser: httpx.AsyncClient, token: str) -> httpx.Response:
        """Do what the page does."""
        browser.headers["x-csrf-token"] = (await browser.get("/api/session")).json()["csrf"]
        answer = await browser.post("/api/sign-in", json={"token": token})
        browser.headers["x-csrf-token"] = (await browser.get("/api/session")).json()["csrf"]
        return answer


def cookie_flags(answer: httpx.Response) -> dict[str, str]:
    """The flags of the cookie that an answer sets, in lower case, with its name and value."""
    text = answer.headers["set-cookie"]
    parts = [part.strip() for part in text.split(";")]
    name, _, value = parts[0].partition("=")
    flags = {"name": name, "value": value}
    for part in parts[1:]:
        key, _, found = part.partition("=")
        flags[re.sub("-", "", key.lower())] = found
    return flags
