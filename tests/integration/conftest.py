"""MLflow's stores for tests that write to it, and a broker that a test may stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftgate.broker import EmbeddedKafka
from driftgate.broker.ports import free_ports
from tests.support.mlflow_stores import copy_of, make_template, mlflow_server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker that keeps its data and its port over restarts; not started yet."""
    port, _ = free_ports(None)
    embedded = EmbeddedKafka(data_dir=tmp_path / "kafka", port=port)
    yield embedded
    embedded.stop()


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has its tables: making them takes seconds."""
    return make_template(tmp_path_factory.mktemp("mlflow-template"))


@pytest.fixture
def mlflow_uri(mlflow_template: Path, tmp_path: Path) -> str:
    """A database of the test's own."""
    return copy_of(mlflow_template, tmp_path)


@pytest.fixture(scope="session")
def mlflow_url(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real server for the session; tests share it, each in an experiment of its own."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with mlflow_server(copy_of(mlflow_template, folder), folder) as url:
        yield url
