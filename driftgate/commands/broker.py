"""`driftgate broker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from driftgate.broker import BrokerError, EmbeddedKafka, serve
from driftgate.console_io import err, out
from driftgate.errors import DriftgateError, Exit

__all__ = ["broker"]


def broker(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1.")] = 9092,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keeps topics over restarts; else a temporary folder.")
    ] = None,
) -> None:
    """Run Apache Kafka on this machine, in the foreground: for trying out, not for production."""
    label_before = ""

    def progress(done: int, total: int, label: str) -> None:
        nonlocal label_before
        if label != label_before:
            err.print(f"[{done}/{total}] {label}", markup=False)
            label_before = label

    def ready(kafka: EmbeddedKafka) -> None:
        out.print(f"{kafka.version} accepts at {kafka.bootstrap_servers}", markup=False)
        err.print(f"log: {kafka.log_path}; Ctrl-C stops it", markup=False)

    try:
        serve(on_ready=ready, port=port, data_dir=data_dir, environ=os.environ, progress=progress)
    except BrokerError as error:
        raise DriftgateError(str(error), Exit.BROKER) from error
