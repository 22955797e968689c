"""The small HTTP server of a process: ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.registry import Collector

from driftgate.errors import SettingsError
from schemas.version import VERSION

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Probes", "Progress", "registry_of", "serve"]

log = logging.getLogger("driftgate")


class Probes(NamedTuple):
    """What a supervisor asks; each says what is wrong, or None."""

    alive: Callable[[], str | None] = lambda: None
    """Whether it still does its work; one that does not should be restarted."""
    ready: Callable[[], str | None] = lambda: None
    """Whether it has begun to do it."""


class Progress:
    """Finds out whether a counter still moves, by looking at it whenever it is asked.

    Args:
        count: read it.
        what: is counted.
        limit_s: the longest that it may stand still.
        monotonic: seconds.
    """

    def __init__(
        self,
        count: Callable[[], int],
        what: str,
        limit_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._what = what
        self._limit_s = limit_s
        self._monotonic = monotonic
        self._last = count()
        self._moved_at = monotonic()

    def __call__(self) -> str | None:
        """What is wrong, or None."""
        count, now = self._count(), self._monotonic()
        if count != self._last:
            self._last, self._moved_at = count, now
        still_s = now - self._moved_at
        return None if still_s <= self._limit_s else f"no {self._what} for {still_s:.0f} s"


class _Server(WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 5

    def log_message(self, *_: Any) -> None:
        """Say nothing: it is asked every few seconds."""


def registry_of(role: str, *collectors: Collector) -> CollectorRegistry:
    """What a process tells Prometheus.

    Args:
        role: of the process, for ``driftgate_build_info``.
        collectors: of its metrics, beside those that every process has.
    """
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    Info("driftgate_build", "What runs.", registry=registry).info(
        {"version": VERSION, "role": role}
    )
    for each in collectors:
        registry.register(each)
    return registry


def serve(role: str, address: tuple[str, int], probes: Probes, *collectors: Collector) -> int:
    """Serve in a thread until the process ends.

    Args:
        role: of the process, for ``driftgate_build_info``.
        address: host and port; port 0 takes a free one.
        probes: of its life.
        collectors: of its metrics, beside those that every process has.

    Returns:
        The port.

    Raises:
        SettingsError: the address cannot be had.
    """
    app = _app(registry_of(role, *collectors), probes)
    try:
        server = make_server(*address, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        host, port = address
        raise SettingsError(
            f"{host}:{port} cannot be listened on: {error}; choose another with "
            "DRIFTGATE_HTTP_HOST and DRIFTGATE_HTTP_PORT"
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics on http://%s:%d/metrics", address[0], server.server_port)
    return server.server_port


def _app(registry: CollectorRegistry, probes: Probes) -> Any:
    metrics = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                found: Iterable[bytes] = metrics(environ, start)
                return found
            case "/healthz":
                return _answer(start, probes.alive())
            case "/readyz":
                return _answer(start, probes.alive() or probes.ready())
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics, /healthz and /readyz\n"]

    return app


def _answer(start: StartResponse, wrong: str | None) -> Iterable[bytes]:
    status = "200 OK" if wrong is None else "503 Service Unavailable"
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
    return [f"{wrong or 'ok'}\n".encode()]
