"""Stores of MLflow to write to, and to read back as its users do."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.settings import KafkaSettings
from streams.settings import TrackerSettings
from streams.tracking.environment import mlflow_environment
from tests.support.processes import ROOT, eventually

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from streams.tracking.mlflow_sink import MlflowSink

__all__ = [
    "MLFLOW_WARNINGS",
    "START_S",
    "client_of",
    "copy_of",
    "free_port",
    "make_template",
    "mlflow_module",
    "mlflow_server",
    "settings_of",
    "sink_of",
]

MLFLOW_WARNINGS = [
    pytest.mark.filterwarnings(text)
    for text in (
        # MLflow 3.17 with SQLAlchemy 2.1.
        "ignore:The ``noload`` loader strategy:DeprecationWarning",
    )
]
"""What MLflow's use of its own libraries warns of; for `pytestmark`."""

_LEASH = Path(__file__).parent / "leash.py"
START_S = 240.0
"""For MLflow to start: its imports and its tables take a minute of a busy machine."""


def mlflow_module(name: str = "mlflow") -> Any:
    """A module of MLflow's, or of ours that imports it; imported when it is needed, in seconds."""
    os.environ |= mlflow_environment(30)
    with warnings.catch_warnings():
        # Of its own type hints, and of what it imports: nothing that we could change.
        warnings.simplefilter("ignore")
        for each in ("mlflow", "mlflow.genai", "mlflow.pyfunc", name):
            importlib.import_module(each)
    return sys.modules[name]


def settings_of(uri: str, **changes: Any) -> TrackerSettings:
    """Settings of a tracker that writes there."""
    path = Path(uri.removeprefix("sqlite:///"))
    beside = (path.parent / "artifacts").as_uri() if uri.startswith("sqlite") else None
    return TrackerSettings(
        **{
            "kafka": KafkaSettings(),
            "uri": uri,
            "artifact_location": beside,
            "loader_module": "driftgate.served_model",
            "requirements": ["driftgate==0.1.0"],
            **changes,
        }
    )


def sink_of(settings: TrackerSettings) -> MlflowSink:
    """What the tracker writes by."""
    sink: MlflowSink = mlflow_module("streams.tracking.mlflow_sink").MlflowSink(settings)
    return sink


def client_of(uri: str) -> MlflowClient:
    """What MLflow's users read by."""
    client: MlflowClient = mlflow_module().MlflowClient(uri, registry_uri=uri)
    return client


def make_template(folder: Path) -> Path:
    """A database that has its tables, which takes seconds to make."""
    path = folder / "template.db"
    client_of(f"sqlite:///{path}").search_experiments()
    return path


def copy_of(template: Path, folder: Path) -> str:
    """The URI of an empty database."""
    path = folder / "mlflow.db"
    shutil.copyfile(template, path)
    return f"sqlite:///{path}"


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's own server over a database, as `mlflow server` starts it; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
               "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(ROOT)}  # fmt: skip
    log = folder / "mlflow-server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(_LEASH), sys.executable, "-m", "mlflow", "server",
             "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", uri,
             "--artifacts-destination", str(folder / "server-artifacts")],
            env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually("MLflow's server answers", answers, START_S)
        yield url
    finally:
        # Its workers are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
