"""A model hub: the part of huggingface.co's API that fetching a snapshot uses, on 127.0.0.1."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Hub", "hub"]

COMMIT = "c0ffee" * 6 + "c0de"
"""A revision's name has 40 hexadecimal digits."""


class Hub:
    """Models by name, each as its files' contents by path."""

    def __init__(self) -> None:
        self.models: dict[str, Mapping[str, bytes]] = {}
        self.asked: list[str] = []
        self.answers = threading.Event()
        """While it is not set, no request is answered."""
        self.answers.set()
        self.port = 0

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def find(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers of an answer; None for a 404."""
        match path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, "revision", _] if f"{owner}/{name}" in self.models:
                files = [{"rfilename": file} for file in self.models[f"{owner}/{name}"]]
                answer = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": files}
                return json.dumps(answer).encode(), {"Content-Type": "application/json"}
            case [owner, name, "resolve", _, *file]:
                content = self.models.get(f"{owner}/{name}", {}).get("/".join(file))
                if content is not None:
                    etag = f'"{hashlib.sha256(content).hexdigest()}"'
                    return content, {"ETag": etag, "X-Repo-Commit": COMMIT}
        return None


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a free port."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            served.asked.append(self.path)
            served.answers.wait()
            body, headers = served.find(self.path) or (b"", {"X-Error-Code": "RepoNotFound"})
            self.send_response(404 if "X-Error-Code" in headers else 200)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
