"""`driftgate feedback send`."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from typing import Annotated

import typer
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from driftgate.commanding import default_actor
from driftgate.commands.options import Bootstrap, JsonFlag
from driftgate.console_io import out, print_json
from driftgate.errors import DriftgateError, Exit
from driftgate.settings import kafka_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas.cloudevents import encode_json
from schemas.feedback import FeedbackGiven, FeedbackKind
from schemas.prompts import SourcePosition
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Say what you think of an analysis.")


class Label(StrEnum):
    """What an expert says."""

    CORRECT = "correct"
    WRONG = "wrong"


@app.callback()
def _group() -> None:
    """A command of its own, so that there may be others."""


@app.command()
def send(
    event_id: Annotated[
        str, typer.Argument(help="`id` of the enriched event, for example prompts/1/19.")
    ],
    rating: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="A user's: 0 is bad, 1 is good.")
    ] = None,
    label: Annotated[Label | None, typer.Option(help="An expert's.")] = None,
    judge: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="A judging model's: 0 to 1.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Kept with a curated case, redacted.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who says it. [the user]")] = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Send feedback on one result; the curator looks up whose it is.

    What is not counted, because there is no such event, is on prompts.feedback.rejected.
    """
    given = _given(event_id, rating, label, judge, comment, actor or default_actor())
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    try:
        position = asyncio.run(_send(kafka, given))
    except KafkaError as error:
        raise DriftgateError(f"Kafka: {error!r}", Exit.BROKER) from error
    if json:
        print_json({"position": position.event_id(), "feedback": given})
    else:
        out.print(f"sent as {position.event_id()}", markup=False)


def _given(
    event_id: str,
    rating: float | None,
    label: Label | None,
    judge: float | None,
    comment: str | None,
    actor: str,
) -> FeedbackGiven:
    values = {
        FeedbackKind.USER_RATING: rating,
        FeedbackKind.EXPERT_LABEL: None if label is None else float(label is Label.CORRECT),
        FeedbackKind.JUDGE_SCORE: judge,
    }
    said = [(kind, value) for kind, value in values.items() if value is not None]
    if len(said) != 1:
        raise typer.BadParameter("give exactly one of --rating, --label and --judge")
    ((kind, value),) = said
    if not 1 <= len(event_id) <= 400 or len(comment or "") > 2000:
        raise typer.BadParameter("an id has 1 to 400 characters, a comment at most 2,000")
    return FeedbackGiven(event_id=event_id, kind=kind, value=value, actor=actor, comment=comment)


async def _send(kafka: KafkaSettings, given: FeedbackGiven) -> SourcePosition:
    await ensure_topics(kafka)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True
    ) as producer:
        sent = await producer.send_and_wait(
            kafka.topic(Topic.FEEDBACK), encode_json(given), key=given.event_id.encode()
        )
    return SourcePosition(sent.topic, sent.partition, sent.offset)
