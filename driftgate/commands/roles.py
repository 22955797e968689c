"""`driftgate analyzer` and `driftgate monitor`: the processes that keep running."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from aiokafka.errors import KafkaError

from analyzer.errors import WorkerFencedError
from analyzer.loading import load_model
from analyzer.settings import AnalyzerSettings
from analyzer.worker import Worker
from driftgate.commands.options import Bootstrap, PolicyFile, Service
from driftgate.drift_setting import check_reference
from driftgate.errors import DriftgateError, Exit
from driftgate.logs import configure_logging
from driftgate.settings import (
    analyzer_settings,
    http_address,
    kafka_settings,
    monitor_settings,
)
from driftgate.topics import ensure_topics
from driftgate.waiting import wait_for_broker
from schemas.settings import KafkaSettings

if TYPE_CHECKING:
    from streams.telemetry import Telemetry

__all__ = ["analyzer", "monitor"]

log = logging.getLogger("driftgate")

RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a crashed monitor starts again; the last one repeats."""
STEADY_SECONDS = 120.0
"""A monitor that ran for so long starts its pauses anew."""
_RESTARTS_VARIABLE = "_DRIFTGATE_RESTARTS"


def analyzer(
    bootstrap: Bootstrap = None,
    service: Service = None,
    worker_id: Annotated[
        str | None,
        typer.Option(help="Stable name of this process, one each. [DRIFTGATE_WORKER_ID]"),
    ] = None,
) -> None:
    """Run an analyzer worker: prompts in, enriched events out."""
    configure_logging(os.environ)
    settings = analyzer_settings(
        os.environ,
        kafka_settings(os.environ, bootstrap),
        service=service,
        worker_id=worker_id,
    )
    check_reference(settings)
    _prepare(settings.kafka)
    try:
        asyncio.run(_work(settings))
    except WorkerFencedError as error:
        raise DriftgateError(str(error), Exit.FENCED) from error
    except KafkaError as error:
        raise DriftgateError(f"Kafka: {error!r}", Exit.BROKER) from error


async def _work(settings: AnalyzerSettings) -> None:
    worker = Worker(settings, lambda: load_model(settings))
    _serve_analyzer(worker)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()


def _serve_analyzer(worker: Worker) -> None:
    address = http_address(os.environ)
    if address is None:
        return
    from driftgate.prometheus import AnalyzerCollector, Probes, Progress, serve

    seen = worker.telemetry
    probes = Probes(
        alive=Progress(lambda: seen.beats, "heartbeat"),
        ready=lambda: None if worker.ready else "it has no partitions yet",
    )
    serve("analyzer", address, probes, AnalyzerCollector(seen, worker.heartbeat))


def monitor(
    bootstrap: Bootstrap = None,
    monitor_id: Annotated[
        str | None,
        typer.Option(help="Stable name of this process, one each. [DRIFTGATE_MONITOR_ID]"),
    ] = None,
    policy: PolicyFile = None,
) -> None:
    """Run the monitor: measures, judges, decides."""
    import faust

    from streams.app import create_app
    from streams.telemetry import Telemetry

    configure_logging(os.environ)
    with tempfile.TemporaryDirectory(prefix="driftgate-monitor-") as data_dir:
        settings = monitor_settings(
            os.environ,
            kafka_settings(os.environ, bootstrap),
            monitor_id=monitor_id,
            policy=policy,
            data_dir=data_dir,
        )
        _prepare(settings.kafka)
        started = time.monotonic()
        telemetry = Telemetry()
        _serve_monitor(telemetry)
        worker = faust.Worker(
            create_app(settings, telemetry),
            loglevel=None,
            override_logging=False,
            redirect_stdouts=False,
            quiet=True,
            console_port=0,
        )
        # It writes control characters, on anything else than a terminal too.
        worker.spinner = None
        # What was imported stays: the collector need not walk through it again and again.
        gc.freeze()
        code = _run_to_end(worker)
    if code:
        _start_again(code, steady=time.monotonic() - started > STEADY_SECONDS)


def _serve_monitor(telemetry: Telemetry) -> None:
    address = http_address(os.environ)
    if address is None:
        return
    from driftgate.prometheus import MonitorCollector, Probes, Progress, serve

    probes = Probes(
        alive=Progress(lambda: telemetry.ticks, "turn of its timer"),
        ready=lambda: None if telemetry.assigned else "it has not joined its group yet",
    )
    serve("monitor", address, probes, MonitorCollector(telemetry))


def _run_to_end(worker: Any) -> int:
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _start_again(code: int, *, steady: bool) -> None:
    """Replace this process by a fresh one, which goes on from the last checkpoint.

    A record whose outputs could not be delivered ends the Faust application, so that it is folded
    again: after a broker's outage that is the way back, and there is nothing to lose by it.
    """
    restarts = 0 if steady else int(os.environ.get(_RESTARTS_VARIABLE, "0"))
    pause_s = RESTART_SECONDS[min(restarts, len(RESTART_SECONDS) - 1)]
    log.error(
        "the monitor crashed (code %d, see above) and starts again in %g s; nothing is lost",
        code,
        pause_s,
    )
    time.sleep(pause_s)
    os.environ[_RESTARTS_VARIABLE] = str(restarts + 1)
    os.execv(sys.executable, [sys.executable, "-m", "driftgate", *sys.argv[1:]])  # noqa: S606


def _prepare(kafka: KafkaSettings) -> None:
    """Wait for the broker, then make sure of the topics."""
    answer = wait_for_broker(kafka.bootstrap_servers)
    log.info("Kafka cluster %s at %s", answer.cluster_id, kafka.bootstrap_servers)
    created = asyncio.run(ensure_topics(kafka))
    if created:
        log.info("created topics %s", ", ".join(created))
