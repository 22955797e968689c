"""`driftgate produce`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from aiokafka.errors import KafkaError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from driftgate.commands.options import Bootstrap, JsonFlag
from driftgate.console_io import err, out, print_json
from driftgate.errors import DriftgateError, Exit
from driftgate.producing import BadRow, Produced, read_prompts
from driftgate.producing import produce as publish
from driftgate.settings import kafka_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker

__all__ = ["produce"]

_SHOWN_BAD_ROWS = 20


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="JSONL or CSV with a `prompt` or `text` column."
        ),
    ],
    rate: Annotated[
        float, typer.Option(min=0.0, help="Prompts a second; 0 is as fast as it goes.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts.")] = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Publish the prompts of a file to the prompts topic."""
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    rows = list(read_prompts(file))[:limit]
    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("publishing", total=sum(not isinstance(r, BadRow) for r in rows))

        async def run() -> Produced:
            await ensure_topics(kafka)
            return await publish(
                kafka, rows, rate_per_s=rate, progress=lambda n: bar.update(task, completed=n)
            )

        try:
            done = asyncio.run(run())
        except KafkaError as error:
            raise DriftgateError(f"Kafka: {error!r}", Exit.BROKER) from error
    for bad in done.bad_rows[:_SHOWN_BAD_ROWS]:
        err.print(f"{file}:{bad.line}: {bad.reason}", markup=False)
    if len(done.bad_rows) > _SHOWN_BAD_ROWS:
        err.print(f"... and {len(done.bad_rows) - _SHOWN_BAD_ROWS} more rows", markup=False)
    if json:
        print_json({"published": done.published, "refused": len(done.bad_rows)})
    else:
        out.print(f"{done.published} prompts published, {len(done.bad_rows)} rows refused")
    if done.bad_rows:
        raise typer.Exit(Exit.FAILED)
