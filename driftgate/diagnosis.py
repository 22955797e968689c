"""What `driftgate doctor` checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from analyzer.errors import AnalyzerError
from analyzer.loading import load_model as load
from analyzer.model import locate_model
from driftgate.broker import BrokerUnreachableError, probe_cluster
from driftgate.drift_setting import check_reference
from driftgate.errors import DriftgateError
from driftgate.heartbeats import RECENT_MS, live_workers
from driftgate.settings import analyzer_settings, policy_setting
from driftgate.topics import check_topics
from schemas.settings import KafkaSettings

__all__ = ["Finding", "diagnose"]

_PROBE_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """One check's result."""

    check: str
    ok: bool
    found: str
    cure: str = ""


def diagnose(
    environ: Mapping[str, str],
    kafka: KafkaSettings,
    service: str,
    policy: Path | None,
    *,
    load_model: bool,
) -> list[Finding]:
    """Every check's result, in an order in which a failure explains those after it."""
    findings = [
        _guarded("policy", lambda: _policy(environ, policy)),
        _guarded("model", lambda: _model(environ, kafka, load_model=load_model)),
        _guarded("drift reference", lambda: check_reference(analyzer_settings(environ, kafka))),
    ]
    try:
        answer = probe_cluster(kafka.bootstrap_servers, _PROBE_S)
    except BrokerUnreachableError as error:
        cure = "start Kafka (`driftgate broker` for trying out), or correct "
        findings.append(Finding("broker", False, str(error), f"{cure}DRIFTGATE_BOOTSTRAP_SERVERS"))
        return findings
    where = f"cluster {answer.cluster_id} at {kafka.bootstrap_servers}"
    findings.append(Finding("broker", True, f"{where}, {len(answer.nodes)} node(s)"))
    topics = asyncio.run(check_topics(kafka))
    findings += [
        Finding(f"topic {t.name}", t.problem is None, t.problem or "as it must be", t.cure)
        for t in topics
    ]
    if all(t.problem is None for t in topics):
        findings.append(asyncio.run(_workers(kafka, service)))
    return findings


def _guarded(check: str, run: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, run())
    except (DriftgateError, AnalyzerError) as error:
        return Finding(check, False, str(error), "see the message")


def _policy(environ: Mapping[str, str], path: Path | None) -> str:
    policy = policy_setting(environ, path)
    return (
        f"{len(policy.gates)} gates, {len(policy.stages)} stages, hash {policy.hash}, "
        f"{policy.blue} -> {policy.green}"
    )


def _model(environ: Mapping[str, str], kafka: KafkaSettings, *, load_model: bool) -> str:
    settings = analyzer_settings(environ, kafka)
    source = locate_model(settings.model)
    if not load_model:
        return f"{source.label} (add --load to load it)"
    started = time.monotonic()
    model = load(settings)
    model.encoder.encode(["Is anybody there?"])
    return f"{source.label}: {model.encoder.name} answers, {time.monotonic() - started:.1f} s"


async def _workers(kafka: KafkaSettings, service: str) -> Finding:
    """Which analyzers have sent a heartbeat lately."""
    live = await live_workers(kafka, service)
    if not live:
        return Finding(
            "workers",
            False,
            f"no analyzer of service {service!r} has sent a heartbeat within {RECENT_MS // 1000} s",
            "start one: driftgate analyzer",
        )
    parts = [
        f"{worker}: model {beat.model}, lag {beat.lag_messages}, "
        f"{beat.rss_bytes / 2**20:.0f} MiB, revision {beat.applied_revision}"
        for worker, beat in live.items()
    ]
    return Finding("workers", True, "; ".join(parts))
