"""Real receivers of alerts: a mail server, and a web server that stands for the rest."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

__all__ = ["Mailbox", "Posted", "Webhook", "mailbox", "webhook"]


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.url = ""
        """Of Apprise."""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A mail server on a free port."""
    box = Mailbox()
    # Its own check that it is up connects to the port it was given: it must be a real one.
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as holder:
        port = holder.server_port
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    box.url = f"mailto://127.0.0.1:{port}?from=driftgate@example.org&to=oncall@example.org"
    try:
        yield box
    finally:
        controller.stop()


class Posted(NamedTuple):
    """A request."""

    path: str
    body: Any


class Webhook:
    """What a web server was posted, and how it answers."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.status = 200
        self.hold = threading.Event()
        """While it is not set, no request is answered."""
        self.hold.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def apprise_url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook"


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A web server on a free port."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.hold.wait()
            if hook.status < 300:
                hook.posted.append(Posted(self.path, json.loads(body)))
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
