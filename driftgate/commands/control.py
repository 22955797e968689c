"""`driftgate control`."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from driftgate.commands.options import Bootstrap, JsonFlag
from driftgate.console_io import err, out, print_json
from driftgate.reading import TopicReader, decode_control
from driftgate.settings import kafka_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas.control import ControlEvent
from schemas.errors import DecodeError
from schemas.topics import Topic

__all__ = ["control", "event_line"]


def control(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep waiting for new events.")
    ] = False,
    service: Annotated[
        str | None, typer.Option("--service", help="Only of this service; else of all.")
    ] = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Print the control events: what was decided, when, and why."""
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    seen: set[str] = set()

    def show(record: Any) -> None:
        if service is not None and record.key != service.encode():
            return
        try:
            event = decode_control(record)
        except DecodeError as error:
            err.print(f"offset {record.offset}: not a control event: {error}", markup=False)
            return
        # A repetition carries the same id: a consumer that drops it sees each decision once.
        if event.id in seen:
            return
        seen.add(event.id)
        if json:
            print_json(event)
        else:
            out.print(event_line(event), markup=False)

    async def run() -> None:
        await ensure_topics(kafka)
        async with TopicReader(kafka, Topic.CONTROL) as reader:
            records = [record async for record in reader.to_end()]
            for record in sorted(records, key=lambda r: (r.timestamp, r.partition, r.offset)):
                show(record)
            while follow:
                for record in await reader.poll(1.0):
                    show(record)

    asyncio.run(run())


def event_line(event: ControlEvent) -> str:
    """An event in one line for people."""
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    kind = str(event.__struct_config__.tag)
    by = "" if event.actor == "driftgate" else f" (by {event.actor})"
    return f"{at}Z {event.service} {kind:<20} share {event.share:>4.0%}  {event.reason}{by}"
