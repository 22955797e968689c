"""All settings: environment variables, what they mean, and the structs that they become."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from analyzer.cache_redis_url import RedisSettingError, check_redis_url
from analyzer.curation import CurationLimits
from analyzer.curator_settings import CuratorSettings
from analyzer.encoder_choice import ENCODERS
from analyzer.settings import AnalyzerSettings, Delivery
from driftgate.broker import default_cache_dir
from driftgate.errors import SettingsError
from schemas.drift_reference import ReferenceFile, load_reference
from schemas.errors import DriftReferenceError, PolicyError
from schemas.policy import Policy, default_policy, load_policy
from schemas.settings import KafkaSettings
from schemas.version import VERSION
from streams.settings import (
    ConsoleSettings,
    MonitorSettings,
    NotifierSettings,
    TrackerSettings,
)

__all__ = [
    "ENVIRONMENT",
    "Variable",
    "analyzer_settings",
    "console_directory",
    "console_settings",
    "curator_settings",
    "http_address",
    "kafka_settings",
    "model_setting",
    "monitor_settings",
    "notifier_settings",
    "policy_setting",
    "reference_setting",
    "service_setting",
    "tracker_settings",
    "validation_report_setting",
]

T = TypeVar("T")


class Variable(NamedTuple):
    """An environment variable."""

    default: str
    meaning: str


ENVIRONMENT: Mapping[str, Variable] = {
    "DRIFTGATE_ALERTMANAGER_URL": Variable("", "Alertmanager that gets every alert, for example "
                                           "http://127.0.0.1:9093"),
    "DRIFTGATE_BATCH_SECONDS": Variable("0.15", "what the analysis of a batch should take; sizes "
                                        "batches"),
    "DRIFTGATE_BOOTSTRAP_SERVERS": Variable("127.0.0.1:9092", "Kafka, as host:port[,host:port]"),
    "DRIFTGATE_CALIBRATION": Variable("", "calibration.json of `driftgate calibrate`; else the "
                                      "one that ships"),
    "DRIFTGATE_CACHE_BYTES": Variable("67108864", "size limit of a worker's embedding cache"),
    "DRIFTGATE_CACHE_DIR": Variable("~/.cache/driftgate", "where downloaded jars and exported "
                                    "models are kept"),
    "DRIFTGATE_CONSOLE_DIR": Variable("~/.local/share/driftgate", "where the console keeps its "
                                      "database and its tokens"),
    "DRIFTGATE_CONSOLE_HOST": Variable("127.0.0.1", "where the console is served"),
    "DRIFTGATE_CONSOLE_MAX_ROWS": Variable("2000000", "most rows of a table of its database; the "
                                           "oldest go first"),
    "DRIFTGATE_CONSOLE_PORT": Variable("8765", "of the console"),
    "DRIFTGATE_CONSOLE_RETENTION_DAYS": Variable("30", "what the console keeps"),
    "DRIFTGATE_CONSOLE_SESSION_HOURS": Variable("12", "after a sign-in; then it asks for the token "
                                                "again"),
    "DRIFTGATE_CURATION_CASES": Variable("5", "the most cases a window and partition of a "
                                         "curator"),
    "DRIFTGATE_CURATION_SECONDS": Variable("60", "of a window, of which the worst prompts become "
                                           "cases"),
    "DRIFTGATE_DELIVERY": Variable("exactly_once", "or at_least_once, where Kafka has no "
                                   "transactions"),
    "DRIFTGATE_DEVICE": Variable("cpu", "or cuda: sentence-transformers computes there"),
    "DRIFTGATE_DOMAINS": Variable("", "domains.yaml with more domains, or others of these names"),
    "DRIFTGATE_DRIFT_REFERENCE": Variable("", "reference.json of `driftgate drift calibrate`, for "
                                          "analyzers and for who starts a rollout; else the first "
                                          "prompts"),
    "DRIFTGATE_ENCODER": Variable("auto", "openvino, onnx or sentence-transformers; auto takes the "
                                  "fastest that is faithful on this CPU"),
    "DRIFTGATE_FAULTS_FILE": Variable("", "JSON file of faults to inject, for rehearsals only"),
    "DRIFTGATE_FEEDBACK_EVENTS": Variable("50000", "results that a curator remembers for feedback "
                                          "without an attribution; 3 to 10 KB each"),
    "DRIFTGATE_FEEDBACK_SECONDS": Variable("86400", "how long after its result such feedback may "
                                           "come"),
    "DRIFTGATE_HEARTBEAT_SECONDS": Variable("1", "between two heartbeats of a worker"),
    "DRIFTGATE_HTTP_HOST": Variable("127.0.0.1", "where /metrics, /healthz and /readyz are served"),
    "DRIFTGATE_HTTP_PORT": Variable("", "port of /metrics, /healthz and /readyz, one a process; "
                                    "none without it, 0 takes a free one"),
    "DRIFTGATE_LOG_FORMAT": Variable("text", "or json: one object a line, with the service and "
                                     "the rollout that it is about"),
    "DRIFTGATE_LOG_LEVEL": Variable("INFO", "DEBUG, INFO, WARNING or ERROR"),
    "DRIFTGATE_MAX_POLL_RECORDS": Variable("256", "the most prompts a batch of a worker"),
    "DRIFTGATE_MLFLOW_EXPERIMENT": Variable("driftgate", "MLflow's experiment that holds runs and "
                                            "traces"),
    "DRIFTGATE_MLFLOW_TIMEOUT_SECONDS": Variable("30", "a request to MLflow that takes longer is "
                                                 "made again"),
    "DRIFTGATE_MLFLOW_URI": Variable("sqlite:///mlflow.db", "where MLflow keeps its data; "
                                     "MLFLOW_TRACKING_URI where this is not set"),
    "DRIFTGATE_MODEL": Variable("", "model folder or hub name; else an installed package, else "
                                "the hub"),
    "DRIFTGATE_MONITOR_ID": Variable("monitor-1", "static name of a monitor process, one each"),
    "DRIFTGATE_NOTIFY_ESCALATION_URLS": Variable("", "the same for alerts that nobody has "
                                                 "acknowledged in time"),
    "DRIFTGATE_NOTIFY_URLS": Variable("", "Apprise URLs that get every alert, with spaces between: "
                                      "mail, chats, pagers, webhooks"),
    "DRIFTGATE_POLICY": Variable("", "policy file for rollouts started without one; else the "
                                 "default policy"),
    "DRIFTGATE_PROMPT_PARTITIONS": Variable("4", "partitions of the prompt topics: the most "
                                            "analyzers that share the work"),
    "DRIFTGATE_REDIS_TTL_SECONDS": Variable("604800", "life of a vector in the shared cache"),
    "DRIFTGATE_REDIS_URL": Variable("", "redis://[user:password@]host[:port][/database] of a cache "
                                    "that workers share (needs `driftgate[redis]`); else each has "
                                    "its own alone"),
    "DRIFTGATE_REPLICATION_FACTOR": Variable("1", "copies of each topic"),
    "DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS": Variable("5", "a batch that takes longer falls back to "
                                                   "rules"),
    "DRIFTGATE_SERVICE": Variable("default", "the application that is monitored"),
    "DRIFTGATE_SERVICE_PARTITIONS": Variable("4", "partitions of the log: the most monitors that "
                                             "share the services"),
    "DRIFTGATE_SHED_LAG_MESSAGES": Variable("0", "prompts waiting for a worker beyond which it "
                                            "leaves the semantic half out; 0 is never"),
    "DRIFTGATE_TOPIC_PREFIX": Variable("", "put before every topic and group name"),
    "DRIFTGATE_TRACE_RATIO": Variable("0.02", "share of prompts that get a trace in MLflow, 0 to "
                                      "1; errors, fallbacks, curated cases and what is spoken of "
                                      "always do"),
    "DRIFTGATE_VALIDATION_REPORT": Variable("validation-report.json", "report of `driftgate "
                                            "validate` that a start is checked against"),
    "DRIFTGATE_WORKER_ID": Variable("", "stable name of an analyzer process, one each; else made "
                                    "up at each start"),
}  # fmt: skip
"""Every variable that is read, with its default."""


def _read(environ: Mapping[str, str], name: str, convert: Callable[[str], T]) -> T:
    text = environ.get(name, "").strip() or ENVIRONMENT[name].default
    try:
        return convert(text)
    except ValueError as error:
        raise SettingsError(
            f"{name}={text!r} cannot be used: {error} ({ENVIRONMENT[name].meaning})"
        ) from error


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _positive_seconds(text: str) -> float:
    number = float(text)
    if not 0.001 <= number < float("inf"):
        raise ValueError("must be a number of seconds, at least 0.001")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0.0 < number < 1e6:
        raise ValueError("must be a number above 0")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65_536:
        raise ValueError("must be a port, 0 to 65535")
    return number


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name, "").strip()
    return Path(text) if text else None


def _encoder(text: str) -> str:
    if text not in ENCODERS:
        raise ValueError(f"must be one of {', '.join(ENCODERS)}")
    return text


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must be 0 or more")
    return number


def _ratio(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError("must be a number from 0 to 1")
    return number


def _redis_url(environ: Mapping[str, str]) -> str | None:
    text = environ.get("DRIFTGATE_REDIS_URL", "").strip()
    if not text:
        return None
    try:
        check_redis_url(text)
    except RedisSettingError as error:
        # Without the value: it may hold a password.
        raise SettingsError(f"DRIFTGATE_REDIS_URL cannot be used: {error}") from error
    return text


def kafka_settings(environ: Mapping[str, str], bootstrap_servers: str | None = None
                   ) -> KafkaSettings:  # fmt: skip
    """How to reach Kafka.

    Args:
        environ: the environment.
        bootstrap_servers: of the command line; goes before the environment.

    Raises:
        SettingsError: a variable cannot be used.
    """
    return KafkaSettings(
        bootstrap_servers=bootstrap_servers or _read(environ, "DRIFTGATE_BOOTSTRAP_SERVERS", str),
        topic_prefix=_read(environ, "DRIFTGATE_TOPIC_PREFIX", str),
        prompt_partitions=_read(environ, "DRIFTGATE_PROMPT_PARTITIONS", _positive_int),
        service_partitions=_read(environ, "DRIFTGATE_SERVICE_PARTITIONS", _positive_int),
        replication_factor=_read(environ, "DRIFTGATE_REPLICATION_FACTOR", _positive_int),
    )


def http_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Where a process serves its metrics; None when it does not.

    Raises:
        SettingsError: the port is none.
    """
    if not environ.get("DRIFTGATE_HTTP_PORT", "").strip():
        return None
    return (
        _read(environ, "DRIFTGATE_HTTP_HOST", str),
        _read(environ, "DRIFTGATE_HTTP_PORT", _not_negative),
    )


def service_setting(environ: Mapping[str, str], service: str | None = None) -> str:
    """The service, of the command line or the environment."""
    return service or _read(environ, "DRIFTGATE_SERVICE", str)


def policy_setting(environ: Mapping[str, str], path: Path | None = None) -> Policy:
    """The policy of the command line or the environment, else the default one.

    Its drift reference is the configured one.

    Raises:
        SettingsError: it cannot be used; names file, key and reason.
    """
    named = str(path) if path else environ.get("DRIFTGATE_POLICY", "").strip()
    try:
        policy = load_policy(Path(named)) if named else default_policy()
    except PolicyError as error:
        raise SettingsError(str(error)) from error
    file = reference_setting(environ)
    if file is None or policy.drift.reference == file.reference:
        return policy
    if policy.drift.reference is not None:
        raise SettingsError(
            f"{named}: drift.reference is {policy.drift.reference.id}, and "
            f"DRIFTGATE_DRIFT_REFERENCE is {file.reference.id}: take one of them out"
        )
    drift = msgspec.structs.replace(policy.drift, reference=file.reference)
    return msgspec.structs.replace(policy, drift=drift)


def reference_setting(environ: Mapping[str, str]) -> ReferenceFile | None:
    """The drift reference that is configured, if any is.

    Raises:
        SettingsError: it cannot be used; names the file, the reason and the cure.
    """
    path = _path(environ, "DRIFTGATE_DRIFT_REFERENCE")
    try:
        return load_reference(path) if path is not None else None
    except DriftReferenceError as error:
        raise SettingsError(f"DRIFTGATE_DRIFT_REFERENCE: {error}") from error


def model_setting(environ: Mapping[str, str]) -> str | None:
    """The model that is configured, if any is."""
    return environ.get("DRIFTGATE_MODEL", "").strip() or None


def validation_report_setting(environ: Mapping[str, str]) -> Path:
    """Where the report of `driftgate validate` is."""
    return _read(environ, "DRIFTGATE_VALIDATION_REPORT", Path)


def analyzer_settings(
    environ: Mapping[str, str],
    kafka: KafkaSettings,
    *,
    service: str | None = None,
    worker_id: str | None = None,
) -> AnalyzerSettings:
    """The settings of an analyzer.

    Raises:
        SettingsError: a variable cannot be used.
    """
    stable_id = worker_id or environ.get("DRIFTGATE_WORKER_ID", "").strip()
    return AnalyzerSettings(
        kafka=kafka,
        service=service_setting(environ, service),
        worker_id=stable_id or f"{socket.gethostname()}-{os.getpid()}",
        static_member=bool(stable_id),
        delivery=_read(environ, "DRIFTGATE_DELIVERY", Delivery),
        model=model_setting(environ),
        encoder=_read(environ, "DRIFTGATE_ENCODER", _encoder),
        device=_read(environ, "DRIFTGATE_DEVICE", str),
        model_cache_dir=default_cache_dir(environ) / "models",
        semantic_timeout_seconds=_read(
            environ, "DRIFTGATE_SEMANTIC_TIMEOUT_SECONDS", _positive_seconds
        ),
        batch_seconds=_read(environ, "DRIFTGATE_BATCH_SECONDS", _positive_seconds),
        max_poll_records=_read(environ, "DRIFTGATE_MAX_POLL_RECORDS", _positive_int),
        heartbeat_seconds=_read(environ, "DRIFTGATE_HEARTBEAT_SECONDS", _positive_seconds),
        cache_bytes=_read(environ, "DRIFTGATE_CACHE_BYTES", _not_negative),
        redis_url=_redis_url(environ),
        redis_ttl_seconds=_read(environ, "DRIFTGATE_REDIS_TTL_SECONDS", _positive_int),
        shed_lag_messages=_read(environ, "DRIFTGATE_SHED_LAG_MESSAGES", _not_negative),
        faults_file=_path(environ, "DRIFTGATE_FAULTS_FILE"),
        drift_reference=reference_setting(environ),
        domains_file=_path(environ, "DRIFTGATE_DOMAINS"),
        calibration_file=_path(environ, "DRIFTGATE_CALIBRATION"),
    )


def curator_settings(environ: Mapping[str, str], kafka: KafkaSettings) -> CuratorSettings:
    """The settings of a curator.

    Raises:
        SettingsError: a variable cannot be used.
    """
    return CuratorSettings(
        kafka=kafka,
        curator_id=f"{socket.gethostname()}-{os.getpid()}",
        events=_read(environ, "DRIFTGATE_FEEDBACK_EVENTS", _positive_int),
        event_seconds=_read(environ, "DRIFTGATE_FEEDBACK_SECONDS", _positive_seconds),
        curation=CurationLimits(
            window_seconds=_read(environ, "DRIFTGATE_CURATION_SECONDS", _positive_seconds),
            cases=_read(environ, "DRIFTGATE_CURATION_CASES", _positive_int),
        ),
    )


def _mlflow_uri(environ: Mapping[str, str]) -> str:
    """Where MLflow keeps its data."""
    own = environ.get("DRIFTGATE_MLFLOW_URI", "").strip()
    foreign = environ.get("MLFLOW_TRACKING_URI", "").strip()
    return own or foreign or ENVIRONMENT["DRIFTGATE_MLFLOW_URI"].default


def tracker_settings(environ: Mapping[str, str], kafka: KafkaSettings) -> TrackerSettings:
    """The settings of a tracker.

    Raises:
        SettingsError: a variable cannot be used.
    """
    uri = _mlflow_uri(environ)
    kind, separator, place = uri.partition("://")
    if not separator or kind == "file":
        # Without the value: it may hold a password.
        raise SettingsError(
            "DRIFTGATE_MLFLOW_URI (or MLFLOW_TRACKING_URI) cannot be used: give a database "
            "(sqlite:///mlflow.db, postgresql://...) or a server (http://127.0.0.1:5000); MLflow "
            "keeps no traces in a folder"
        )
    return TrackerSettings(
        kafka=kafka,
        uri=uri,
        experiment=_read(environ, "DRIFTGATE_MLFLOW_EXPERIMENT", str),
        artifact_location=_artifact_location(kind, place),
        trace_ratio=_read(environ, "DRIFTGATE_TRACE_RATIO", _ratio),
        timeout_seconds=_read(environ, "DRIFTGATE_MLFLOW_TIMEOUT_SECONDS", _positive_int),
        loader_module="driftgate.served_model",
        requirements=[f"driftgate=={VERSION}"],
    )


def _artifact_location(kind: str, place: str) -> str | None:
    """Beside an SQLite file; else MLflow would put files below whatever folder it is started in."""
    database = Path(place.removeprefix("/").partition("?")[0])
    if kind != "sqlite" or not database.name:
        return None
    return (database.resolve().parent / "mlflow-artifacts").as_uri()


def monitor_settings(
    environ: Mapping[str, str],
    kafka: KafkaSettings,
    *,
    monitor_id: str | None = None,
    policy: Path | None = None,
    data_dir: str,
) -> MonitorSettings:
    """The settings of a monitor.

    Raises:
        SettingsError: a variable or the policy cannot be used.
    """
    return MonitorSettings(
        kafka=kafka,
        monitor_id=monitor_id or _read(environ, "DRIFTGATE_MONITOR_ID", str),
        policy=policy_setting(environ, policy),
        data_dir=data_dir,
    )


def notifier_settings(environ: Mapping[str, str], kafka: KafkaSettings) -> NotifierSettings:
    """Where alerts go.

    Raises:
        SettingsError: nowhere.
    """
    settings = NotifierSettings(
        kafka=kafka,
        urls=environ.get("DRIFTGATE_NOTIFY_URLS", "").split(),
        escalation_urls=environ.get("DRIFTGATE_NOTIFY_ESCALATION_URLS", "").split(),
        alertmanager_url=environ.get("DRIFTGATE_ALERTMANAGER_URL", "").strip() or None,
    )
    if not (settings.urls or settings.escalation_urls or settings.alertmanager_url):
        raise SettingsError(
            "alerts go nowhere: set DRIFTGATE_NOTIFY_URLS (such as "
            "mailtos://user:password@example.org?to=oncall@example.org), "
            "DRIFTGATE_ALERTMANAGER_URL, or both"
        )
    return settings


def console_directory(environ: Mapping[str, str]) -> Path:
    """Where the console keeps its database and its tokens."""
    named = environ.get("DRIFTGATE_CONSOLE_DIR", "").strip()
    if named:
        return Path(named).expanduser()
    # XDG Base Directory Specification; without the variable, the default of the table.
    home = environ.get("XDG_DATA_HOME", "").strip()
    base = Path(home) if home else Path("~/.local/share").expanduser()
    return base / "driftgate"


def console_settings(
    environ: Mapping[str, str],
    kafka: KafkaSettings,
    *,
    host: str | None = None,
    port: int | None = None,
) -> ConsoleSettings:
    """The settings of the console.

    Raises:
        SettingsError: a variable cannot be used.
    """
    return ConsoleSettings(
        kafka=kafka,
        host=host or _read(environ, "DRIFTGATE_CONSOLE_HOST", str),
        port=_read(environ, "DRIFTGATE_CONSOLE_PORT", _port) if port is None else port,
        directory=str(console_directory(environ)),
        retention_days=_read(environ, "DRIFTGATE_CONSOLE_RETENTION_DAYS", _positive),
        max_rows=_read(environ, "DRIFTGATE_CONSOLE_MAX_ROWS", _positive_int),
        session_hours=_read(environ, "DRIFTGATE_CONSOLE_SESSION_HOURS", _positive),
    )
