"""`driftgate demo`."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from driftgate.broker import BrokerError, choose_broker
from driftgate.console_io import err, out, print_json
from driftgate.demo.story import Ending, Outcome, Story
from driftgate.demo.view import LiveView, PlainView
from driftgate.errors import DriftgateError, Exit
from driftgate.logs import configure_logging
from driftgate.settings import kafka_settings

__all__ = ["demo"]


def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Plain lines instead of a live picture.")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave everything open at the end, with traffic, to look at."),
    ] = False,
) -> None:
    """Show the whole story: a rollout, a regression, the rollback. Ends with a line of JSON."""
    configure_logging({"DRIFTGATE_LOG_LEVEL": "ERROR", **os.environ})
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="driftgate-demo-"))
    ending: list[Ending] = []
    try:
        with choose_broker(os.environ, progress=_progress) as broker:
            out.print(f"broker: {broker.describe()}", markup=False)
            kafka = kafka_settings(os.environ, broker.bootstrap_servers)
            prefix = f"demo-{secrets.token_hex(4)}." if broker.kind == "external" else ""
            kafka = type(kafka)(
                bootstrap_servers=kafka.bootstrap_servers,
                topic_prefix=prefix,
                prompt_partitions=kafka.prompt_partitions,
                service_partitions=kafka.service_partitions,
                replication_factor=kafka.replication_factor,
            )
            live = out.is_terminal and not headless
            view = LiveView(out) if live else PlainView(out)

            def told(end: Ending) -> None:
                ending.append(end)
                view.close()
                _show(end, folder, keep=keep)

            try:
                asyncio.run(Story(broker, kafka, folder, os.environ, view).run(told, keep=keep))
            finally:
                view.close()
    except BrokerError as error:
        raise DriftgateError(str(error), Exit.BROKER) from error
    except KeyboardInterrupt:
        if not ending:
            raise
    if not _good(ending[0].outcome):
        raise typer.Exit(Exit.FAILED)


def _show(end: Ending, folder: Path, *, keep: bool) -> None:
    outcome = end.outcome
    out.print(f"logs of the processes: {folder}", markup=False)
    if keep:
        out.print(f"console: {outcome.console}, sign in with {end.token}", markup=False)
        out.print(f"MLflow: {end.mlflow_page or outcome.mlflow_uri}", markup=False)
    else:
        out.print(
            f"console: {outcome.console}, while the demo ran; --keep leaves it open", markup=False
        )
        out.print(
            f"MLflow: run {outcome.mlflow_run} of {outcome.mlflow_uri}; "
            f"`DRIFTGATE_MLFLOW_URI={outcome.mlflow_uri} driftgate mlflow` shows it",
            markup=False,
        )
    print_json(outcome)
    if keep:
        err.print("prompts go on, and green is healthy again: try a retry in the console. "
                  "Ctrl-C ends it", markup=False)  # fmt: skip


def _good(outcome: Outcome) -> bool:
    return outcome.rolled_back and outcome.lost == 0 and outcome.duplicated == 0


_shown = [""]


def _progress(done: int, total: int, label: str) -> None:
    """A line when something new begins, not one for every chunk."""
    if label != _shown[0]:
        _shown[0] = label
        err.print(f"[{done}/{total}] {label}", markup=False)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM as Ctrl-C: unwinds through every `with`, which stops every process."""
    sys.stderr.write("stopping\n")
    raise KeyboardInterrupt
