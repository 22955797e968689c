"""`driftgate console` and `driftgate token ...`: the page, and who may see it."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from driftgate.broker import BrokerUnreachableError, probe_cluster
from driftgate.commanding import acknowledge, command
from driftgate.commands.options import Bootstrap, JsonFlag, Service
from driftgate.console_io import err, out, print_json, table
from driftgate.errors import DriftgateError, Exit, SettingsError
from driftgate.logs import configure_logging
from driftgate.settings import (
    console_directory,
    console_settings,
    kafka_settings,
    service_setting,
)
from driftgate.topics import ensure_topics
from schemas.control import AlertEvent, ControlEvent
from schemas.log import Command, OperatorCommand
from schemas.settings import KafkaSettings
from streams.console.tokens import Role, problem_of
from streams.errors import (
    BrokerAwayError,
    CommandRefusedError,
    CommandUnansweredError,
    ListenError,
    StoreError,
    TokenFileError,
)

if TYPE_CHECKING:
    from streams.console.token_file import TokenFile

__all__ = ["app", "console"]

app = typer.Typer(no_args_is_help=True, help="Make and take back tokens for the web console.")

ANSWER_S = 15.0
PROBE_S = 5.0


def console(
    host: Annotated[
        str | None, typer.Option(help="Where to serve it. [DRIFTGATE_CONSOLE_HOST]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free one. [DRIFTGATE_CONSOLE_PORT]"),
    ] = None,
    service: Service = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Serve the web console: see, decide, act. Sign in with a token of `driftgate token create`."""
    from prometheus_client import generate_latest

    from driftgate.prometheus import ConsoleCollector, registry_of
    from streams.console.process import Console

    configure_logging(os.environ)
    kafka = kafka_settings(os.environ, bootstrap)
    collector = ConsoleCollector()
    try:
        process = Console(
            console_settings(os.environ, kafka, host=host, port=port),
            ask=partial(_ask, kafka),
            prepare=partial(_prepared, kafka),
            default_service=service_setting(os.environ, service),
            metrics=partial(generate_latest, registry_of("console", collector)),
        )
        collector.console = process
        asyncio.run(process.run())
    except (StoreError, TokenFileError, ListenError) as error:
        raise SettingsError(str(error)) from error


async def _prepared(kafka: KafkaSettings) -> str:
    """The cluster's id, once its topics are there; see `streams.console.kafka_feed.Prepare`."""
    try:
        answer = await asyncio.to_thread(probe_cluster, kafka.bootstrap_servers, PROBE_S)
        await ensure_topics(kafka)
    except (BrokerUnreachableError, DriftgateError) as error:
        raise BrokerAwayError(str(error)) from error
    return answer.cluster_id


async def _ask(kafka: KafkaSettings, asked: OperatorCommand) -> ControlEvent | AlertEvent:
    """See `streams.console.web.Ask`."""
    send = acknowledge if asked.command is Command.ACKNOWLEDGE else command
    try:
        await asyncio.to_thread(probe_cluster, kafka.bootstrap_servers, PROBE_S)
        return await send(kafka, asked, timeout_s=ANSWER_S, source="/driftgate/console")
    except BrokerUnreachableError as error:
        raise CommandUnansweredError(f"{error}; the command was not sent") from error
    except DriftgateError as error:
        if error.code is Exit.REFUSED:
            raise CommandRefusedError(str(error)) from error
        raise CommandUnansweredError(str(error)) from error


def _tokens() -> TokenFile:
    from streams.console.process import TOKENS
    from streams.console.token_file import TokenFile

    return TokenFile(console_directory(os.environ) / TOKENS)


@app.command()
def create(
    role: Annotated[Role, typer.Option(help="viewer: see. operator: see and act.")],
    name: Annotated[str, typer.Option(help="Of who gets it: the actor of what they command.")],
    days: Annotated[float, typer.Option(min=0.001, max=3650, help="Its life.")] = 90.0,
    json: JsonFlag = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    try:
        text, token = _tokens().create(name=name, role=role, days=days)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    except TokenFileError as error:
        raise SettingsError(str(error)) from error
    if json:
        print_json({"token": text, "id": token.id, "name": token.name, "role": token.role,
                    "expires_ms": token.expires_ms})  # fmt: skip
        return
    err.print(
        f"token {token.id} of {token.name} ({token.role}), good until {_day(token.expires_ms)}; it "
        "is shown this once:",
        markup=False,
    )
    out.print(text, markup=False)


@app.command(name="list")
def list_(json: JsonFlag = False) -> None:
    """Show the tokens, without their secrets."""
    try:
        found = _tokens().tokens()
    except TokenFileError as error:
        raise SettingsError(str(error)) from error
    now_ms = time.time_ns() // 1_000_000
    if json:
        for t in found:
            shown = {name: getattr(t, name) for name in t.__struct_fields__ if name != "sha256"}
            print_json({**shown, "state": problem_of(t, now_ms) or "good"})
        return
    if not found:
        err.print("no tokens yet: driftgate token create --role operator --name YOU", markup=False)
        return
    rows = [
        (t.id, t.name, t.role, _day(t.created_ms), _day(t.expires_ms),
         problem_of(t, now_ms) or "good")
        for t in found
    ]  # fmt: skip
    out.print(table("tokens", ("id", "name", "role", "made", "until", "state"), rows))


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="Of the token, as `driftgate token list` shows it.")],
) -> None:
    """Take a token back; who is signed in by it is signed out within seconds."""
    try:
        token = _tokens().revoke(id)
    except TokenFileError as error:
        raise SettingsError(str(error)) from error
    out.print(f"token {token.id} of {token.name} is revoked", markup=False)


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
