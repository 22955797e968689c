"""Who plays in the demo: every process of driftgate, each with what the others must not see."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from driftgate.errors import DriftgateError
from driftgate.mlflow_server import HOST, free_port
from driftgate.processes import Role
from driftgate.topics import ensure_topics
from schemas.settings import KafkaSettings
from streams.console.process import TOKENS
from streams.console.token_file import TokenFile
from streams.console.tokens import Role as ConsoleRole

__all__ = ["SERVICE", "WORKERS", "Cast"]

SERVICE = "demo"
WORKERS = ("analyzer-1", "analyzer-2")
READY_TIMEOUT_S = 180.0
"""MLflow's imports and the tables of a new database take half a minute on a small busy machine."""
_ASK_SECONDS = 0.3
_NICE_SINK = 10
"""All of it is on one machine here: what only looks on is not to cost the prompts time."""


class Cast:
    """The processes of a demo; they end with its `with` block.

    Args:
        kafka: where, with a topic prefix of the demo's own where the broker is shared.
        folder: for logs, the console's and MLflow's databases, and the fault file.
        environ: of the processes.
    """

    def __init__(self, kafka: KafkaSettings, folder: Path, environ: Mapping[str, str]) -> None:
        self._kafka = kafka
        self._folder = folder
        self._stack = ExitStack()
        self._roles: list[Role] = []
        self._ports: dict[str, int] = {}
        self.faults = folder / "faults.json"
        self.environ = {
            **{k: v for k, v in environ.items() if k != "DRIFTGATE_HTTP_PORT"},
            "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
            "DRIFTGATE_SERVICE": SERVICE,
            # Not the user's own: nobody wants a demo in there.
            "DRIFTGATE_MLFLOW_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "DRIFTGATE_CONSOLE_DIR": str(folder),
            # The demo is short: so that there is something to see.
            "DRIFTGATE_TRACE_RATIO": "0.2",
            "DRIFTGATE_FAULTS_FILE": str(self.faults),
        }
        self.token = ""
        """Of an operator, for the console."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def start(self) -> None:
        """Start everybody."""
        await ensure_topics(self._kafka)
        for name in WORKERS:
            self._start(name, "analyzer", "--worker-id", name)
        self._start("monitor", "monitor", "--monitor-id", "demo-monitor")
        self._start("curator", "curator")
        self._start("tracker", "tracker")
        place = Path(self.environ["DRIFTGATE_CONSOLE_DIR"])
        self.token, _ = TokenFile(place / TOKENS).create(
            name="demo", role=ConsoleRole.OPERATOR, days=1.0
        )
        port = free_port()
        self._start("console", "console", "--port", str(port))
        self._ports["console"] = port
        if self.environ.get("DRIFTGATE_NOTIFY_URLS") or self.environ.get(
            "DRIFTGATE_ALERTMANAGER_URL"
        ):
            self._start("notifier", "notifier")

    def _start(self, name: str, *arguments: str) -> None:
        port = free_port()
        environ = {**self.environ, "DRIFTGATE_HTTP_HOST": HOST, "DRIFTGATE_HTTP_PORT": str(port)}
        self._ports[name] = port
        nice = 0 if name in (*WORKERS, "monitor") else _NICE_SINK
        role = Role(name, arguments, environ, self._folder / f"{name}.log", nice=nice)
        self._roles.append(self._stack.enter_context(role))

    @property
    def console_url(self) -> str:
        """Where the console is."""
        return f"http://{HOST}:{self._ports['console']}"

    def check(self) -> None:
        """See that everybody is alive.

        Raises:
            DriftgateError: somebody is not; with the last lines of its log.
        """
        for role in self._roles:
            ended = role.ended()
            if ended:
                raise DriftgateError(ended)

    def wait_until_ready(self, ready: Callable[[str], None]) -> None:
        """Wait until all say that they are.

        Args:
            ready: told the name of each when it is.

        Raises:
            DriftgateError: somebody died, or is not ready in time.
        """
        missing = dict(self._ports)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while missing:
            self.check()
            for name, port in list(missing.items()):
                if _is_ready(port):
                    del missing[name]
                    ready(name)
            if time.monotonic() > deadline:
                raise DriftgateError(f"not ready: {', '.join(missing)}; logs: {self._folder}")
            time.sleep(_ASK_SECONDS)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
