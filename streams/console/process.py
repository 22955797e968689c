"""The console as a process: the feed, the pages, and the broom, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn

from streams.console.gatekeeper import Gatekeeper
from streams.console.hub import Hub
from streams.console.kafka_feed import Feed, Link, Prepare
from streams.console.model import ConsoleModel, Section
from streams.console.store import Store
from streams.console.token_file import TokenFile
from streams.console.views import encode_section
from streams.console.web import Ask, Counts, Parts, create_web
from streams.errors import ListenError, StoreError
from streams.settings import ConsoleSettings

__all__ = ["DATABASE", "TOKENS", "Console"]

log = logging.getLogger("driftgate.console")

DATABASE = "console.db"
TOKENS = "tokens.json"
PRUNE_S = 600.0
"""Between two sweeps of what is older than the retention: a sweep is short, and ten minutes more or
less of history do not matter."""
STOP_S = 3
"""For requests under way at the end; streams end at once."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Console:
    """The whole console.

    Args:
        settings: of it.
        ask: sends a command, see :data:`streams.console.web.Ask`.
        prepare: makes sure of the broker and its topics.
        default_service: what a page shows that names none.
        metrics: what Prometheus is told, in its text format.

    Raises:
        StoreError: the database cannot be used.
        TokenFileError: the tokens cannot be read.
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        *,
        ask: Ask,
        prepare: Prepare,
        default_service: str,
        metrics: Callable[[], bytes],
    ) -> None:
        self._settings = settings
        folder = Path(settings.directory)
        self.store = Store(folder / DATABASE)
        tokens = TokenFile(folder / TOKENS)
        if not tokens.tokens():
            log.warning(
                "nobody can sign in yet: make a token with "
                "`driftgate token create --role operator --name YOU`"
            )
        self.model = ConsoleModel()
        if useless := self.model.restore(self.store.items()):
            log.warning("%d events of an older version are left out", useless)
        self.hub = Hub(self._render, self._pulse)
        self._retention_ms = round(settings.retention_days * 86_400_000)
        self.feed = Feed(
            settings.kafka, self.store, self.model, self.hub, prepare,
            retention_ms=self._retention_ms,
        )  # fmt: skip
        self.counts = Counts()
        self.gatekeeper = Gatekeeper(
            tokens, self.store, session_ms=round(settings.session_hours * 3_600_000)
        )
        self._web = create_web(
            Parts(
                model=self.model,
                store=self.store,
                hub=self.hub,
                gatekeeper=self.gatekeeper,
                ask=ask,
                default_service=default_service,
                ready=self.not_ready,
                metrics=metrics,
                counts=self.counts,
            )
        )

    def _render(self, section: Section, service: str) -> bytes:
        return encode_section(
            section,
            self.model,
            service,
            _now_ms(),
            most_workers=self._settings.kafka.prompt_partitions,
        )

    def _pulse(self) -> bytes:
        return msgspec.json.encode({"now_ms": _now_ms(), "feed": self.feed.state})

    def not_ready(self) -> str | None:
        """What keeps the page from showing what is; None when nothing does."""
        state = self.feed.state
        match state.link:
            case Link.AWAY:
                return f"the broker is away: {state.problem}"
            case Link.CATCHING_UP:
                return f"catching up with the topics: {state.lag} records to read"
        return state.history_problem or None

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            ListenError: the address cannot be had.
        """
        sock = _listen(self._settings.host, self._settings.port)
        server = _Server(
            uvicorn.Config(
                self._web,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, server)
        work = [asyncio.create_task(self.feed.run()), asyncio.create_task(self._sweep())]
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        log.info("the console is at http://%s:%d/", *sock.getsockname()[:2])
        try:
            # Whatever ends first: a defect in the feed must not leave a page that stands still.
            await asyncio.wait([*work, serving], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                self._stop(server)
            await serving
        finally:
            for task in work:
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
            await asyncio.to_thread(self.store.close)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _stop(self, server: uvicorn.Server) -> None:
        self.hub.close()
        server.should_exit = True

    async def _sweep(self) -> None:
        while True:
            before_ms = _now_ms() - self._retention_ms
            try:
                gone = await asyncio.to_thread(self.store.prune, before_ms, self._settings.max_rows)
            except StoreError as error:
                log.error("%s", error)
            else:
                if gone:
                    log.info("%d rows were older than the retention, or too many", gone)
            await asyncio.sleep(PRUNE_S)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ListenError(
            f"{host}:{port} cannot be listened on: {error}; choose another with --host and --port "
            "(DRIFTGATE_CONSOLE_HOST, DRIFTGATE_CONSOLE_PORT)"
        ) from error


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
