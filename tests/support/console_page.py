"""A page of a running console, as far as HTTP goes: signs in, follows, gives commands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from schemas.settings import KafkaSettings
from streams.console.process import TOKENS
from streams.console.token_file import TokenFile
from streams.console.tokens import Role
from tests.support.processes import Driftgate, Launch
from tests.support.workers import until

__all__ = ["Page", "RunningConsole", "run_console"]


class RunningConsole:
    """A console process and where it is."""

    def __init__(self, process: Driftgate, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._tokens = TokenFile(folder / TOKENS)
        process.wait_for_log("the console is at http://")
        found = re.search(r"the console is at (http://127\.0\.0\.1:\d+)/", process.log)
        assert found
        self.url = found[1]

    def token(self, role: Role = Role.OPERATOR, name: str = "ana") -> str:
        """A token for it."""
        return self._tokens.create(name=name, role=role, days=1)[0]

    def revoke_last(self) -> None:
        """Take the newest token back."""
        self._tokens.revoke(self._tokens.tokens()[-1].id)


def run_console(
    launch: Launch, kafka: KafkaSettings, folder: Path, *arguments: str, **variables: str
) -> RunningConsole:
    """Start a console on a free port, with its files in a folder."""
    process = launch(
        "console", "--port", "0", *arguments,
        kafka=kafka, DRIFTGATE_CONSOLE_DIR=str(folder), DRIFTGATE_SERVICE="shop", **variables,
    )  # fmt: skip
    return RunningConsole(process, folder)


class Page:
    """An open page.

    Attributes:
        sections: the newest data of each section, as JSON values.
        connected: how often the stream was opened.
    """

    def __init__(self, console: RunningConsole, token: str, service: str) -> None:
        self.http = httpx.AsyncClient(base_url=console.url, timeout=30.0)
        self.sections: dict[str, Any] = {}
        self.connected = 0
        self._token = token
        self._service = service

    @classmethod
    @asynccontextmanager
    async def of(
        cls, console: RunningConsole, role: Role = Role.OPERATOR, *, service: str = "shop"
    ) -> AsyncIterator[Page]:
        """A page of somebody who has signed in, whose stream is followed while the block runs."""
        token = await asyncio.to_thread(console.token, role)
        page = cls(console, token, service)
        await page._csrf()
        answer = await page.http.post("/api/sign-in", json={"token": token})
        assert answer.status_code == 200, answer.text
        await page._csrf()
        following = asyncio.create_task(page._follow())
        try:
            yield page
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await page.http.aclose()

    async def _csrf(self) -> None:
        session = await self.http.get("/api/session")
        self.http.headers["x-csrf-token"] = session.json()["csrf"]

    async def _follow(self) -> None:
        """Follow the stream, and connect again when it ends, as a browser does."""
        while True:
            with suppress(httpx.HTTPError):
                url = f"/api/live?service={self._service}"
                async with self.http.stream("GET", url, timeout=10.0) as stream:
                    if stream.status_code == 200:
                        self.connected += 1
                        await self._read(stream)
            await asyncio.sleep(0.2)

    async def _read(self, stream: httpx.Response) -> None:
        name = ""
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                self.sections[name] = msgspec.json.decode(line.removeprefix("data: "))

    async def command(self, command: str, **details: Any) -> httpx.Response:
        """Ask for something, with the revision that is on the page."""
        revision = self.sections["service"]["revision"]
        asked = {"service": self._service, "command": command, "revision": revision, **details}
        return await self.http.post("/api/commands", json=asked)

    async def until(self, what: str, found: Any) -> Any:
        """Wait for something on the page; what is not there yet is waited for."""

        def look() -> Any:
            try:
                return found(self.sections)
            except (KeyError, TypeError, IndexError):
                return None

        return await until(what, look)

    async def history(self, from_ms: int, to_ms: int) -> dict[str, Any]:
        """What the page shows for a time range."""
        query = f"service={self._service}&from={from_ms}&to={to_ms}"
        answer = await self.http.get(f"/api/history?{query}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found
