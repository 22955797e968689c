"""Sends an operator command and waits for the monitor's answer."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer

from driftgate.errors import DriftgateError, Exit
from driftgate.reading import TopicReader, decode_control
from schemas import cloudevents
from schemas.control import (
    AlertEvent,
    AlertStatus,
    CommandRejected,
    ControlEvent,
    RollbackConfirmed,
)
from schemas.errors import DecodeError
from schemas.log import Command, OperatorCommand
from schemas.policy import Policy
from schemas.preflight import PreflightResult
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["acknowledge", "command", "confirmed", "default_actor", "new_command"]

T = TypeVar("T")


def default_actor() -> str:
    """The user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def new_command(
    kind: Command,
    service: str,
    *,
    actor: str,
    reason: str = "",
    green: str | None = None,
    full: bool = False,
    policy: Policy | None = None,
    alert_key: str | None = None,
    preflight: Sequence[PreflightResult] = (),
    rehearsal: bool = False,
) -> OperatorCommand:
    """A command with an id of its own."""
    return OperatorCommand(
        id=uuid.uuid4().hex,
        service=service,
        command=kind,
        actor=actor,
        reason=reason,
        green=green,
        full=full,
        policy=policy,
        alert_key=alert_key,
        preflight=list(preflight),
        rehearsal=rehearsal,
    )


_CLI = "/driftgate/cli"


async def command(
    kafka: KafkaSettings, asked: OperatorCommand, *, timeout_s: float, source: str = _CLI
) -> ControlEvent:
    """Send a command; the control event that answers it.

    Args:
        kafka: where.
        asked: the command.
        timeout_s: how long to wait.
        source: CloudEvents source: by what way the command was given.

    Raises:
        DriftgateError: the monitor refused it, or did not answer within the time.
    """

    def answer(record: Any) -> ControlEvent | None:
        event = decode_control(record)
        return event if event.command_id == asked.id else None

    return await _answered(kafka, asked, answer, timeout_s, source, Topic.CONTROL)


async def confirmed(
    kafka: KafkaSettings, abort: OperatorCommand, *, timeout_s: float
) -> RollbackConfirmed:
    """Take a rollout back; the event that says that every live worker has applied it.

    Raises:
        DriftgateError: the monitor refused it, or there was no such event within the time.
    """
    taken: list[str | None] = []

    def answer(record: Any) -> RollbackConfirmed | None:
        event = decode_control(record)
        if event.command_id == abort.id:
            if isinstance(event, CommandRejected):
                raise DriftgateError(f"refused: {event.reason}", Exit.REFUSED)
            taken.append(event.rollout_id)
        done = isinstance(event, RollbackConfirmed) and event.rollout_id in taken
        return event if done and isinstance(event, RollbackConfirmed) else None

    return await _answered(kafka, abort, answer, timeout_s, _CLI, Topic.CONTROL)


async def acknowledge(
    kafka: KafkaSettings, asked: OperatorCommand, *, timeout_s: float, source: str = _CLI
) -> AlertEvent:
    """Send an acknowledgement; the alert as it stands then. Arguments as for `command`.

    Raises:
        DriftgateError: the monitor refused it, or did not answer within the time.
    """
    alerts = kafka.topic(Topic.ALERTS)

    def answer(record: Any) -> AlertEvent | ControlEvent | None:
        if record.topic != alerts:
            refusal = decode_control(record)
            return refusal if refusal.command_id == asked.id else None
        alert = cloudevents.decode_json(record.value, AlertEvent)
        acknowledged = alert.status is AlertStatus.ACKNOWLEDGED
        ours = alert.key == asked.alert_key and alert.service == asked.service
        return alert if acknowledged and ours and alert.actor == asked.actor else None

    topics = (Topic.CONTROL, Topic.ALERTS)
    event = await _answered(kafka, asked, answer, timeout_s, source, *topics)
    assert isinstance(event, AlertEvent)  # a control event that answers it is a refusal
    return event


async def _answered(
    kafka: KafkaSettings,
    asked: OperatorCommand,
    answer: Callable[[Any], T | None],
    timeout_s: float,
    source: str,
    *topics: Topic,
) -> T:
    async with TopicReader(kafka, *topics) as reader:
        await reader.from_end()
        await _send(kafka, asked, source)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            for record in await reader.poll(min(left, 1.0)):
                try:
                    event = answer(record)
                except DecodeError:
                    # Somebody else's record: not our answer.
                    continue
                if isinstance(event, CommandRejected):
                    raise DriftgateError(f"refused: {event.reason}", Exit.REFUSED)
                if event is not None:
                    return event
    raise DriftgateError(
        f"no answer within {timeout_s:g} s: is a monitor running (`driftgate monitor`)? The "
        "command stands in its topic and will be obeyed when one starts",
        Exit.NO_ANSWER,
    )


async def _send(kafka: KafkaSettings, asked: OperatorCommand, source: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        await producer.send_and_wait(
            kafka.topic(Topic.COMMANDS),
            key=asked.service.encode(),
            value=cloudevents.encode_json(asked),
            headers=cloudevents.headers(
                asked,
                id=asked.id,
                source=source,
                subject=asked.service,
                time_ms=time.time_ns() // 1_000_000,
            ),
        )
    finally:
        await producer.stop()
