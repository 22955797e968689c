"""MLflow's own server on this machine, over the store that the tracker writes to."""

from __future__ import annotations

import os
import socket
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from driftgate.errors import DriftgateError, Exit, SettingsError
from driftgate.processes import Role

__all__ = [
    "HOST",
    "RunPage",
    "experiment_url",
    "find_run",
    "free_port",
    "is_healthy",
    "mlflow_server",
    "run_server",
]

HOST = "127.0.0.1"
"""It asks for no password."""
START_SECONDS = 180.0
"""Its imports take 10 s and the tables of a new database 20 s on a small machine that is busy."""
_POLL_SECONDS = 0.2


def run_server(uri: str, port: int) -> None:
    """Be MLflow's server, until told to stop.

    Args:
        uri: of a database.
        port: to listen on.
    """
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Six processes of 250 MB each, for evaluations that are run by the server.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    from mlflow.cli import cli  # noqa: PLC0415 - it takes seconds

    cli.main(
        ["server", "--host", HOST, "--port", str(port), "--workers", "1",
         "--backend-store-uri", uri],
        prog_name="mlflow",
        standalone_mode=False,
    )  # fmt: skip


@contextmanager
def mlflow_server(
    uri: str,
    port: int,
    environ: Mapping[str, str],
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Role]:
    """A server, as a process of its own, for as long as the block runs.

    Args:
        uri: of a database.
        port: to listen on.
        environ: of the process.
        progress: told the seconds that its start has taken so far.

    Raises:
        SettingsError: the port is taken.
        DriftgateError: it does not start; shows its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="driftgate-mlflow-") as folder:
        _require_free(port)
        role = Role(
            "MLflow's server",
            ["mlflow-server", "--port", str(port)],
            {**environ, "DRIFTGATE_MLFLOW_URI": uri},
            Path(folder) / "server.log",
        )
        with role:
            began = time.monotonic()
            while not is_healthy(f"http://{HOST}:{port}"):
                if (end := role.ended()) is not None:
                    raise DriftgateError(end)
                seconds = time.monotonic() - began
                if seconds > START_SECONDS:
                    raise DriftgateError(f"MLflow's server is not there after {seconds:.0f} s")
                progress(seconds)
                time.sleep(_POLL_SECONDS)
            yield role


def is_healthy(url: str, timeout_s: float = 5.0) -> bool:
    """Whether a server of MLflow answers there."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s) as answer:  # noqa: S310 - http or https
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def experiment_url(url: str, experiment: str, timeout_s: float = 5.0) -> str:
    """The page of an experiment; the front page while there is no such experiment."""
    experiment_id = _experiment_id(url, experiment, timeout_s)
    return url if experiment_id is None else f"{url.rstrip('/')}/#/experiments/{experiment_id}"


class RunPage(NamedTuple):
    """A run, and where it is shown."""

    run_id: str
    url: str
    ended: bool


def find_run(url: str, experiment: str, rollout_id: str, timeout_s: float = 5.0) -> RunPage | None:
    """The run of a rollout, asked of a server, without importing MLflow.

    Args:
        url: of the server.
        experiment: its name.
        rollout_id: of the rollout.
        timeout_s: of each of two requests.

    Returns:
        None while there is no such run, or the server does not answer.
    """
    experiment_id = _experiment_id(url, experiment, timeout_s)
    if experiment_id is None:
        return None
    wanted = {
        "experiment_ids": [experiment_id],
        "filter": f"tags.`driftgate.rollout_id` = '{rollout_id}'",
        "order_by": ["attributes.start_time ASC"],
        "max_results": 1,
    }
    found = _ask(f"{url.rstrip('/')}/api/2.0/mlflow/runs/search", timeout_s, wanted)
    runs = found.get("runs") or [] if found else []
    if not runs:
        return None
    info = runs[0]["info"]
    page = f"{url.rstrip('/')}/#/experiments/{experiment_id}/runs/{info['run_id']}"
    return RunPage(str(info["run_id"]), page, ended=info["status"] != "RUNNING")


def _experiment_id(url: str, experiment: str, timeout_s: float) -> str | None:
    query = urllib.parse.urlencode({"experiment_name": experiment})
    place = f"{url.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?{query}"
    found = _ask(place, timeout_s)
    return None if found is None else str(found["experiment"]["experiment_id"])


def _ask(place: str, timeout_s: float, body: object | None = None) -> dict[str, Any] | None:
    """What MLflow's REST API answers; None where it does not, or knows no such thing."""
    request = urllib.request.Request(  # noqa: S310 - http or https
        place,
        None if body is None else msgspec.json.encode(body),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
            return msgspec.json.decode(answer.read(), type=dict[str, Any])
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # A server that has just ended does not keep it, as far as this matters.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of {HOST} is taken: choose another with --port", Exit.SETTINGS
            ) from error
