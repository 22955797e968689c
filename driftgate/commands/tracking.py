"""`driftgate tracker`, which writes to MLflow, and `driftgate mlflow`, which shows it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import webbrowser
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from aiokafka.errors import KafkaError

from driftgate.commands.options import Bootstrap, JsonFlag
from driftgate.console_io import err, out, print_json
from driftgate.errors import DriftgateError, Exit
from driftgate.logs import configure_logging
from driftgate.settings import http_address, kafka_settings, tracker_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import wait_for_broker
from streams.settings import TrackerSettings

if TYPE_CHECKING:
    from streams.tracking.tracker import Tracker

__all__ = ["mlflow", "mlflow_server", "tracker"]

log = logging.getLogger("driftgate")

STILL_SECONDS = 90.0
"""Without a turn of its loops for so long and a request's time-out, a tracker is not alive: above a
pause and SQLite's wait for a lock together."""


def tracker(bootstrap: Bootstrap = None) -> None:
    """Bring runs, metrics, traces, feedback and model aliases into MLflow."""
    from streams.tracking.environment import mlflow_environment

    configure_logging(os.environ)
    settings = tracker_settings(os.environ, kafka_settings(os.environ, bootstrap))
    os.environ |= mlflow_environment(settings.timeout_seconds)
    # It logs with a traceback what it raises too, and the tracker says that in a line; and that it
    # does not know pip's version, in an environment that was made without pip.
    for name in ("mlflow.store.db.utils", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    cluster = wait_for_broker(settings.kafka.bootstrap_servers)
    log.info("loading MLflow, which takes some seconds")
    began = time.monotonic()
    from streams.tracking.tracker import Tracker

    log.info("loaded in %.1f s", time.monotonic() - began)

    async def run() -> None:
        await ensure_topics(settings.kafka)
        process = Tracker(settings, cluster.cluster_id)
        _serve(process, settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, process.stop)
        await process.run()

    try:
        asyncio.run(run())
    except* KafkaError as errors:
        raise DriftgateError(f"Kafka: {errors.exceptions[0]!r}", Exit.BROKER) from errors


def _serve(process: Tracker, settings: TrackerSettings) -> None:
    address = http_address(os.environ)
    if address is None:
        return
    from driftgate.prometheus import Probes, Progress, TrackerCollector, serve

    seen = process.telemetry
    probes = Probes(
        alive=Progress(
            lambda: seen.turns, "turn of its loops", STILL_SECONDS + settings.timeout_seconds
        ),
        ready=lambda: None if process.ready else "it has not reached MLflow and its groups yet",
    )
    serve("tracker", address, probes, TrackerCollector(seen))


def mlflow(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="On 127.0.0.1; 0 takes a free one.")
    ] = 5000,
    rollout: Annotated[
        str | None, typer.Option(metavar="ID", help="Open the run of this rollout.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    json: JsonFlag = False,
) -> None:
    """Open MLflow's pages: of the server that is configured, or of one that runs meanwhile."""
    from driftgate.mlflow_server import HOST, free_port, mlflow_server

    settings = tracker_settings(os.environ, kafka_settings(os.environ))
    if settings.uri.startswith(("http://", "https://")):
        _show(settings.uri, settings, rollout, open_=open_, json=json)
        return
    port = port or free_port()
    asked = False

    def stop(*_: object) -> None:
        """As Ctrl-C: what was started is ended."""
        nonlocal asked
        asked = True
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, stop)
    with ExitStack() as stack:
        with err.status("MLflow's server starts, which takes some seconds") as status:
            role = stack.enter_context(
                mlflow_server(
                    settings.uri,
                    port,
                    os.environ,
                    lambda seconds: status.update(f"MLflow's server starts ({seconds:.0f} s)"),
                )
            )
        _show(f"http://{HOST}:{port}", settings, rollout, open_=open_, json=json)
        err.print("Ctrl-C ends it", markup=False)
        while (end := role.ended()) is None:
            if asked:
                # Python drops what is raised in a finaliser.
                raise KeyboardInterrupt
            time.sleep(0.5)
        raise DriftgateError(end)


def _show(
    url: str, settings: TrackerSettings, rollout: str | None, *, open_: bool, json: bool
) -> None:
    from driftgate.mlflow_server import experiment_url, find_run

    facts: dict[str, str] = {}
    if rollout is None:
        page = experiment_url(url, settings.experiment)
    elif (run := find_run(url, settings.experiment, rollout)) is not None:
        page = run.url
        facts["run_id"] = run.run_id
    else:
        raise DriftgateError(
            f"rollout {rollout} has no run in the experiment {settings.experiment!r} of "
            f"{settings.shown_uri}: see that a tracker runs, and that `driftgate control` shows it"
        )
    if json:
        print_json({"url": page, **facts})
    else:
        out.print(page, markup=False)
    if open_:
        webbrowser.open(page)


def mlflow_server(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="On 127.0.0.1.")] = 5000,
) -> None:
    """Be MLflow's server; `driftgate mlflow` runs it so."""
    from driftgate.mlflow_server import run_server

    run_server(tracker_settings(os.environ, kafka_settings(os.environ)).uri, port)
