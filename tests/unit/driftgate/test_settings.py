"""Settings come from the environment, and say which variable is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.settings import Delivery
from driftgate.errors import Exit, SettingsError
from driftgate.settings import (
    ENVIRONMENT,
    analyzer_settings,
    console_directory,
    console_settings,
    curator_settings,
    kafka_settings,
    monitor_settings,
    policy_setting,
    service_setting,
    tracker_settings,
)
from schemas.policy import default_policy
from schemas.settings import KafkaSettings


def test_defaults_are_those_of_the_table() -> None:
    """An empty environment gives the defaults, and a blank variable counts as absent."""
    assert kafka_settings({}) == KafkaSettings()
    assert kafka_settings({"DRIFTGATE_PROMPT_PARTITIONS": " "}) == KafkaSettings()
    settings = analyzer_settings({}, KafkaSettings())
    assert settings.delivery is Delivery.EXACTLY_ONCE
    assert settings.max_poll_records == int(ENVIRONMENT["DRIFTGATE_MAX_POLL_RECORDS"].default)
    assert settings.cache_bytes == int(ENVIRONMENT["DRIFTGATE_CACHE_BYTES"].default)
    assert service_setting({}) == "default"


def test_environment_is_read() -> None:
    """Each variable of the analyzer ends in its setting."""
    environ = {
        "DRIFTGATE_BOOTSTRAP_SERVERS": "a:1,b:2",
        "DRIFTGATE_TOPIC_PREFIX": "x.",
        "DRIFTGATE_PROMPT_PARTITIONS": "7",
        "DRIFTGATE_SERVICE_PARTITIONS": "3",
        "DRIFTGATE_REPLICATION_FACTOR": "2",
        "DRIFTGATE_SERVICE": "shop",
        "DRIFTGATE_WORKER_ID": "w-9",
        "DRIFTGATE_DELIVERY": "at_least_once",
        "DRIFTGATE_MODEL": "/models/minilm",
        "DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS": "2.5",
        "DRIFTGATE_HEARTBEAT_SECONDS": "3",
        "DRIFTGATE_CACHE_BYTES": "0",
        "DRIFTGATE_FAULTS_FILE": "faults.json",
    }
    kafka = kafka_settings(environ)
    assert (kafka.bootstrap_servers, kafka.topic_prefix) == ("a:1,b:2", "x.")
    assert (kafka.prompt_partitions, kafka.service_partitions, kafka.replication_factor) == (
        7,
        3,
        2,
    )
    settings = analyzer_settings(environ, kafka)
    assert (settings.service, settings.worker_id, settings.static_member) == ("shop", "w-9", True)
    assert (settings.delivery, settings.model) == (Delivery.AT_LEAST_ONCE, "/models/minilm")
    assert (settings.semantic_timeout_seconds, settings.heartbeat_seconds) == (2.5, 3.0)
    assert (settings.cache_bytes, settings.faults_file) == (0, Path("faults.json"))
    assert settings.group_id == "x.driftgate-analyzer-shop"
    assert settings.transactional_id == "x.driftgate-analyzer-shop-w-9"


def test_command_line_goes_first() -> None:
    """An option wins over its variable."""
    environ = {
        "DRIFTGATE_BOOTSTRAP_SERVERS": "a:1",
        "DRIFTGATE_SERVICE": "shop",
        "DRIFTGATE_WORKER_ID": "w-9",
        "DRIFTGATE_MONITOR_ID": "m-9",
    }
    kafka = kafka_settings(environ, "b:2")
    assert kafka.bootstrap_servers == "b:2"
    settings = analyzer_settings(environ, kafka, service="blog", worker_id="w-1")
    assert (settings.service, settings.worker_id) == ("blog", "w-1")
    assert monitor_settings(environ, kafka, monitor_id="m-1", data_dir="/d").monitor_id == "m-1"
    assert monitor_settings(environ, kafka, data_dir="/d").monitor_id == "m-9"


def test_worker_without_a_name_gets_one_of_its_own() -> None:
    """A made-up id is not static: the group need not wait for it to come back."""
    settings = analyzer_settings({}, KafkaSettings())
    assert settings.worker_id
    assert not settings.static_member


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRIFTGATE_PROMPT_PARTITIONS", "0"),
        ("DRIFTGATE_PROMPT_PARTITIONS", "four"),
        ("DRIFTGATE_SERVICE_PARTITIONS", "-1"),
        ("DRIFTGATE_REPLICATION_FACTOR", "1.5"),
        ("DRIFTGATE_DELIVERY", "twice"),
        ("DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS", "0"),
        ("DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS", "inf"),
        ("DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS", "nan"),
        ("DRIFTGATE_HEARTBEAT_SECONDS", "0.0001"),
        ("DRIFTGATE_CACHE_BYTES", "-1"),
        ("DRIFTGATE_MAX_POLL_RECORDS", "0"),
        ("DRIFTGATE_ENCODER", "tensorrt"),
    ],
)
def test_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """The error names variable, value and meaning, and ends a command with its code."""
    with pytest.raises(SettingsError) as caught:
        analyzer_settings({name: value}, kafka_settings({name: value}))
    assert f"{name}='{value}'" in str(caught.value)
    assert ENVIRONMENT[name].meaning in str(caught.value)
    assert caught.value.code == Exit.SETTINGS


def test_curator_settings_come_from_the_environment() -> None:
    """The defaults are those of the table; each variable ends in its setting, or is refused."""
    standard = curator_settings({}, KafkaSettings())
    assert (standard.events, standard.event_seconds) == (50_000, 86_400.0)
    assert (standard.curation.window_seconds, standard.curation.cases) == (60.0, 5)
    environ = {
        "DRIFTGATE_FEEDBACK_EVENTS": "7",
        "DRIFTGATE_FEEDBACK_SECONDS": "60",
        "DRIFTGATE_CURATION_SECONDS": "0.5",
        "DRIFTGATE_CURATION_CASES": "3",
    }
    found = curator_settings(environ, KafkaSettings(topic_prefix="x."))
    assert (found.events, found.event_seconds) == (7, 60.0)
    assert (found.curation.window_seconds, found.curation.cases) == (0.5, 3)
    assert found.group_id == "x.driftgate-curator"
    for name in environ:
        with pytest.raises(SettingsError, match=f"{name}='0'"):
            curator_settings({name: "0"}, KafkaSettings())


def test_mlflow_is_where_we_or_mlflow_say() -> None:
    """Our variable goes before MLflow's own; without both it is a file of this folder."""
    both = {"DRIFTGATE_MLFLOW_URI": "http://a:1", "MLFLOW_TRACKING_URI": "http://b:2"}
    assert tracker_settings(both, KafkaSettings()).uri == "http://a:1"
    theirs = {**both, "DRIFTGATE_MLFLOW_URI": " "}
    assert tracker_settings(theirs, KafkaSettings()).uri == "http://b:2"
    assert tracker_settings({}, KafkaSettings()).uri == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRIFTGATE_CONSOLE_PORT", "http"),
        ("DRIFTGATE_CONSOLE_PORT", "65536"),
        ("DRIFTGATE_CONSOLE_RETENTION_DAYS", "0"),
        ("DRIFTGATE_CONSOLE_RETENTION_DAYS", "inf"),
        ("DRIFTGATE_CONSOLE_MAX_ROWS", "0"),
        ("DRIFTGATE_CONSOLE_SESSION_HOURS", "nan"),
    ],
)
def test_wrong_values_of_the_console_are_refused_by_name(name: str, value: str) -> None:
    """The console does not start with a setting that it cannot use."""
    with pytest.raises(SettingsError, match=f"{name}='{value}'"):
        console_settings({name: value}, kafka_settings({}))


def test_the_console_keeps_its_files_where_it_is_told(tmp_path: Path) -> None:
    """Its own variable goes first, then the user's data folder; options go before variables."""
    assert console_directory({"DRIFTGATE_CONSOLE_DIR": str(tmp_path)}) == tmp_path
    assert console_directory({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "driftgate"
    assert console_directory({}) == Path("~/.local/share/driftgate").expanduser()
    found = console_settings({"DRIFTGATE_CONSOLE_PORT": "1"}, kafka_settings({}), port=0)
    assert (found.host, found.port, found.session_hours) == ("127.0.0.1", 0, 12.0)


def test_policy_comes_from_a_file(tmp_path: Path) -> None:
    """Option, variable and default, in this order; a bad file is a setting's error."""
    assert policy_setting({}) == default_policy()
    bad = tmp_path / "policy.yaml"
    bad.write_text("gates: [")
    with pytest.raises(SettingsError, match=r"policy\.yaml"):
        policy_setting({"DRIFTGATE_POLICY": str(bad)})
    with pytest.raises(SettingsError, match=r"missing\.yaml"):
        policy_setting({"DRIFTGATE_POLICY": str(bad)}, tmp_path / "missing.yaml")


def test_files_of_sqlite_are_beside_it(tmp_path: Path) -> None:
    """Not below whatever folder the tracker is started in; a server decides for itself."""
    environ = {"DRIFTGATE_MLFLOW_URI": f"sqlite:///{tmp_path}/data/m.db?timeout=3"}
    settings = tracker_settings(environ, KafkaSettings())
    assert settings.artifact_location == (tmp_path / "data/mlflow-artifacts").as_uri()
    assert settings.trace_ratio == float(ENVIRONMENT["DRIFTGATE_TRACE_RATIO"].default)
    server = tracker_settings({"DRIFTGATE_MLFLOW_URI": "http://b:5000"}, KafkaSettings())
    assert server.artifact_location is None


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///mlruns", "hunter2"])
def test_a_folder_keeps_no_traces(uri: str) -> None:
    """The refusal says what would do, and keeps what may be a secret to itself."""
    with pytest.raises(SettingsError, match=r"sqlite:///mlflow\.db") as caught:
        tracker_settings({"DRIFTGATE_MLFLOW_URI": uri}, KafkaSettings())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "nan", "all"])
def test_a_ratio_is_from_0_to_1(ratio: str) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(SettingsError, match="DRIFTGATE_TRACE_RATIO"):
        tracker_settings({"DRIFTGATE_TRACE_RATIO": ratio}, KafkaSettings())


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:hunter2@db:5432/mlflow?sslmode=x", "postgresql://db:5432/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////var/m.db", "sqlite:////var/m.db"),
        ("postgresql://ann:p@ss@db/mlflow", "postgresql://db/mlflow"),
    ],
)
def test_a_uri_is_shown_without_its_password(uri: str, shown: str) -> None:
    """It goes into log lines."""
    settings = tracker_settings({"DRIFTGATE_MLFLOW_URI": uri}, KafkaSettings())
    assert settings.shown_uri == shown
