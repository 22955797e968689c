"""`driftgate curate list` and `driftgate curate export`: the cases that are worth a look."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from driftgate.commands.options import Bootstrap, JsonFlag
from driftgate.console_io import err, out, print_json, table
from driftgate.curated import CaseFilter, Cases, moment, read_cases, write_jsonl
from driftgate.errors import DriftgateError
from driftgate.settings import kafka_settings, tracker_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas.cloudevents import encode_json
from schemas.feedback import CaseReason, CuratedCase
from schemas.settings import KafkaSettings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See and export the prompts that are worth a look.")

ServiceFilter = Annotated[
    str | None, typer.Option("--service", help="Only of this service; else of all.")
]
ReasonFilter = Annotated[
    list[CaseReason] | None,
    typer.Option("--reason", help="Only with this reason; several times for any of several."),
]
SinceFilter = Annotated[
    str | None,
    typer.Option("--since", help="Only those made since: 24h, 7d, or a date (and time, in UTC)."),
]

_SHOWN_CHARS = 100


@app.command(name="list")
def list_(
    service: ServiceFilter = None,
    reason: ReasonFilter = None,
    since: SinceFilter = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Show the newest cases."""
    found = _read(bootstrap, service, reason, since)
    shown = found.cases[:limit]
    if json:
        for case in shown:
            print_json(case)
        return
    if not shown:
        err.print("no case", markup=False)
        return
    rows = [(_time(c), c.service, ", ".join(c.reasons), c.id, _number(c.relevance),
             f"{c.score:.2f}", c.feedback.kind if c.feedback else "", _line(c.prompt))
            for c in shown]  # fmt: skip
    columns = ("made", "service", "reasons", "event", "relevance", "score", "feedback", "prompt")
    out.print(table(f"{len(shown)} of {len(found.cases)} cases", columns, rows))


@app.command()
def export(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="JSONL; - is stdout.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="DATASET", help="Name of an MLflow evaluation dataset."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="That a new dataset belongs to; else DRIFTGATE_MLFLOW_EXPERIMENT."),
    ] = None,
    service: ServiceFilter = None,
    reason: ReasonFilter = None,
    since: SinceFilter = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Write cases to a JSONL file, an MLflow evaluation dataset (DRIFTGATE_MLFLOW_URI), or both.

    With --json the last line of stdout is a summary; with FILE - it goes to stderr.
    """
    if file is None and mlflow is None:
        raise typer.BadParameter("say where to: a file, - for stdout, or --mlflow DATASET")
    found = _read(bootstrap, service, reason, since)
    summary: dict[str, object] = {"cases": len(found.cases), "unreadable": found.unreadable}
    if file == "-":
        for case in found.cases:
            sys.stdout.buffer.write(encode_json(case) + b"\n")
        sys.stdout.buffer.flush()
    elif file is not None:
        try:
            write_jsonl(Path(file), found.cases)
        except OSError as error:
            raise DriftgateError(f"{file}: cannot be written: {error}") from error
        summary["file"] = file
    if mlflow is not None:
        summary |= {
            "dataset": mlflow,
            "dataset_id": _to_mlflow(found.cases, mlflow, experiment),
        }
    if json and file != "-":
        print_json(summary)
    else:
        where = " and ".join(str(place) for place in (file, mlflow) if place is not None)
        err.print(f"{len(found.cases)} cases written to {where}", markup=False)


def _to_mlflow(cases: list[CuratedCase], dataset: str, experiment: str | None) -> str:
    from driftgate.mlflow_dataset import export_to_mlflow

    settings = tracker_settings(os.environ, kafka_settings(os.environ))
    with err.status(f"MLflow at {settings.shown_uri} is asked") as status:
        return export_to_mlflow(
            cases,
            settings if experiment is None else structs.replace(settings, experiment=experiment),
            dataset=dataset,
            progress=lambda done: status.update(f"{done} of {len(cases)} cases are in MLflow"),
        )


def _read(
    bootstrap: str | None,
    service: str | None,
    reasons: list[CaseReason] | None,
    since: str | None,
) -> Cases:
    try:
        since_ms = 0 if since is None else moment(since, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    found = asyncio.run(_cases(kafka, CaseFilter(service, reasons or (), since_ms)))
    if found.unreadable:
        err.print(f"{found.unreadable} records are no cases, and are passed over", markup=False)
    return found


async def _cases(kafka: KafkaSettings, wanted: CaseFilter) -> Cases:
    await ensure_topics(kafka)
    with err.status("reading the cases") as status:
        return await read_cases(kafka, wanted, lambda n: status.update(f"{n} records read"))


def _time(case: CuratedCase) -> str:
    return datetime.fromtimestamp(case.curated_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"
