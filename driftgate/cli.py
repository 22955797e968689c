"""The command line: `driftgate --help`."""

from __future__ import annotations

import os
import sys

import typer

from driftgate.commands import (
    alerts,
    broker,
    calibrate,
    console,
    control,
    curate,
    curator,
    demo,
    doctor,
    drift,
    feedback,
    produce,
    replay,
    roles,
    rollout,
    tracking,
    validate,
)
from driftgate.console_io import err
from driftgate.errors import DriftgateError, Exit
from driftgate.processes import end_with_parent
from schemas.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="driftgate",
    help="Watches a semantic enhancement of prompt analysis while it is rolled out, and takes it "
    "back when it does harm.\n\nExit codes: "
    + ", ".join(f"{code.value} {code.name.lower()}" for code in Exit)
    + ".",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(broker.broker)
app.command()(roles.analyzer)
app.command()(roles.monitor)
app.command()(curator.curator)
app.command()(alerts.notifier)
app.command()(tracking.tracker)
app.command()(tracking.mlflow)
app.command(hidden=True)(tracking.mlflow_server)
app.command()(console.console)
app.command()(produce.produce)
app.command()(control.control)
app.command()(replay.replay)
app.command()(doctor.doctor)
app.command()(validate.validate)
app.command()(calibrate.calibrate)
app.add_typer(rollout.app, name="rollout")
app.add_typer(alerts.app, name="alerts")
app.add_typer(feedback.app, name="feedback")
app.add_typer(curate.app, name="curate")
app.add_typer(console.app, name="token")
app.add_typer(drift.app, name="drift")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; errors that we know end it with their message and exit code."""
    end_with_parent(os.environ)
    try:
        app()
    except DriftgateError as error:
        err.print(f"driftgate: {error}", markup=False, style="red")
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
