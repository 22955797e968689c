"""A way to a web server that can be blocked: what a sick server looks like from outside."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Proxy", "proxied"]

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Proxy:
    """How requests are answered.

    Args:
        target: URL of the server behind.
    """

    def __init__(self, target: str) -> None:
        self.target = urllib.parse.urlsplit(target)
        self.url = ""
        self.status: int | None = None
        """Answers this instead of asking the server."""
        self.closed = False
        """Ends every connection without an answer."""
        self.hold = threading.Event()
        """While it is not set, no request is answered."""
        self.hold.set()
        self.poison: bytes | None = None
        """A request that holds this gets a 500."""
        self.seen = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.seen += 1
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.hold.wait()
        if self.closed:
            handler.close_connection = True
            return
        status = self.status
        if self.poison is not None and self.poison in body:
            status = 500
        if status is not None:
            self._send(handler, status, [], b"out of order")
            return
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in _HOP_BY_HOP}
        connection = http.client.HTTPConnection(str(self.target.netloc), timeout=60)
        try:
            connection.request(handler.command, handler.path, body, headers)
            found = connection.getresponse()
            self._send(handler, found.status, found.getheaders(), found.read())
        finally:
            connection.close()

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy on a free port."""
    proxy = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.answer(self)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - named by the library

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that gave up is not this test's failure."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
