"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Bootstrap", "JsonFlag", "PolicyFile", "Service"]

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Kafka, host:port. [DRIFTGATE_BOOTSTRAP_SERVERS]"),
]
Service = Annotated[
    str | None, typer.Option("--service", help="The monitored application. [DRIFTGATE_SERVICE]")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON lines for programs.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Gate policy (YAML). [DRIFTGATE_POLICY]")
]
