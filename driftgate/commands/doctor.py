"""`driftgate doctor`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from driftgate.commands.options import Bootstrap, JsonFlag, PolicyFile, Service
from driftgate.console_io import out, print_json, table
from driftgate.diagnosis import diagnose
from driftgate.errors import Exit
from driftgate.settings import kafka_settings, service_setting

__all__ = ["doctor"]


def doctor(
    bootstrap: Bootstrap = None,
    service: Service = None,
    policy: PolicyFile = None,
    load: Annotated[
        bool, typer.Option("--load", help="Load the model and embed a sentence (slow).")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check settings, broker, topics, model, policy and workers, and say how to mend each."""
    findings = diagnose(
        os.environ,
        kafka_settings(os.environ, bootstrap),
        service_setting(os.environ, service),
        policy,
        load_model=load,
    )
    if json:
        for finding in findings:
            print_json(finding)
    else:
        marks = {True: "ok", False: "FAILED"}
        rows = [(marks[f.ok], f.check, f.found, f.cure) for f in findings]
        out.print(table("driftgate doctor", ("", "check", "found", "what to do"), rows))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(Exit.FAILED)
