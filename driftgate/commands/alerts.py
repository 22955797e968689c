"""`driftgate notifier` and `driftgate alerts ...`: who is told, and who looks after it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer
from aiokafka.errors import KafkaError

from driftgate.alerting import channels_of, try_channels
from driftgate.commanding import acknowledge, default_actor, new_command
from driftgate.commands.options import Bootstrap, JsonFlag, Service
from driftgate.console_io import err, out, print_json, table
from driftgate.errors import DriftgateError, Exit
from driftgate.logs import configure_logging
from driftgate.reading import TopicReader
from driftgate.settings import kafka_settings, service_setting
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker, wait_for_broker
from schemas import cloudevents
from schemas.control import AlertEvent, AlertStatus
from schemas.errors import DecodeError
from schemas.log import Command
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["app", "newest_by_key", "notifier"]

app = typer.Typer(no_args_is_help=True, help="See, acknowledge and try out alerts.")


def notifier(bootstrap: Bootstrap = None) -> None:
    """Bring alerts to people: by mail, chat, pager, webhook, Alertmanager."""
    from streams.notify.notifier import Notifier

    configure_logging(os.environ)
    kafka = kafka_settings(os.environ, bootstrap)
    channels = channels_of(os.environ, kafka)
    wait_for_broker(kafka.bootstrap_servers)

    async def run() -> None:
        await ensure_topics(kafka)
        process = Notifier(kafka, channels)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, process.stop)
        await process.run()

    try:
        asyncio.run(run())
    except* KafkaError as errors:
        raise DriftgateError(f"Kafka: {errors.exceptions[0]!r}", Exit.BROKER) from errors


@app.command(name="test")
def try_out(bootstrap: Bootstrap = None, json: JsonFlag = False) -> None:
    """Send a test alert by every channel, and say which took it. Needs no broker."""
    channels = channels_of(os.environ, kafka_settings(os.environ, bootstrap))
    results = asyncio.run(try_channels(channels, service_setting(os.environ)))
    if json:
        for result in results:
            print_json(result)
    else:
        rows = [(r.channel, "delivered" if r.delivered else "failed", f"{r.seconds:.2f}",
                 r.error or "") for r in results]  # fmt: skip
        out.print(table("test alert", ("channel", "result", "seconds", "why"), rows))
    failed = [r.channel for r in results if not r.delivered]
    if failed:
        raise DriftgateError(f"{len(failed)} of {len(results)} channels did not take the alert")


@app.command(name="list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that are resolved.")
    ] = False,
    service: Annotated[
        str | None, typer.Option("--service", help="Only of this service; else of all.")
    ] = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Show the alerts that are open, the newest first."""
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)

    async def run() -> list[AlertEvent]:
        await ensure_topics(kafka)
        return await _alerts(kafka)

    found = [
        event
        for event in newest_by_key(asyncio.run(run()))
        if (service is None or event.service == service)
        and (everything or event.status is not AlertStatus.RESOLVED)
    ]
    if json:
        for event in found:
            print_json(event)
        return
    if not found:
        err.print("no alert is open", markup=False)
        return
    rows = [(_time(e.since_ms), e.status, e.severity, e.key, e.actor or "", e.summary)
            for e in found]  # fmt: skip
    out.print(table("alerts", ("since", "status", "severity", "key", "by", "what"), rows))


@app.command()
def ack(
    key: Annotated[str, typer.Argument(help="Of the alert, as `driftgate alerts list` shows it.")],
    service: Service = None,
    actor: Annotated[
        str | None, typer.Option(help="Who looks after it; recorded. [the user]")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, or how; recorded.")] = "",
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1.0, help="Seconds to wait for the monitor's answer.")
    ] = 15.0,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Say that you look after an alert: it is not escalated any more."""
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    asked = new_command(
        Command.ACKNOWLEDGE,
        service_setting(os.environ, service),
        actor=actor or default_actor(),
        reason=reason,
        alert_key=key,
    )

    async def run() -> AlertEvent:
        await ensure_topics(kafka)
        return await acknowledge(kafka, asked, timeout_s=timeout_s)

    event = asyncio.run(run())
    if json:
        print_json(event)
    else:
        out.print(f"{event.key}: acknowledged by {event.actor}", markup=False)


async def _alerts(kafka: KafkaSettings) -> list[AlertEvent]:
    found = []
    async with TopicReader(kafka, Topic.ALERTS) as reader:
        async for record in reader.to_end():
            try:
                found.append(cloudevents.decode_json(record.value, AlertEvent))
            except DecodeError as error:
                err.print(f"offset {record.offset}: not an alert: {error}", markup=False)
    return found


def newest_by_key(events: Iterable[AlertEvent]) -> list[AlertEvent]:
    """The last event of each alert, that which began last first."""
    newest: dict[str, AlertEvent] = {}
    for event in events:
        known = newest.get(event.key)
        # A topic's partitions are read side by side; a key is in one, in order.
        if known is None or event.at_ms >= known.at_ms:
            newest[event.key] = event
    return sorted(newest.values(), key=lambda e: (-e.since_ms, e.key))


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
