"""The Faust application: feeds `driftgate.log` to the fold and operator commands into the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import faust
import msgspec
from faust.types import TP, EventT, StreamT
from mode.supervisors import CrashingSupervisor

from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.log import Command, CommandRecord, CommandUnreadable, OperatorCommand
from schemas.topics import Topic
from streams.fold import LogEntry
from streams.kafka_checkpoints import KafkaCheckpoints
from streams.kafka_fetch import (
    FETCH_MAX_BYTES,
    Chunk,
    KafkaRecord,
    Transport,
    waiting_max_events,
)
from streams.kafka_io import KafkaIO
from streams.runner import LOOK_TICK_SECONDS, FoldRunner
from streams.settings import MonitorSettings
from streams.telemetry import Telemetry

__all__ = ["create_app"]

log = logging.getLogger("driftgate.monitor")

HANDOVER_SECONDS = 5.0
"""How long a rebalance waits for the record that is being folded: shorter than the session time-out
(8 s), or the group would think this monitor dead; longer than any delivery that still succeeds."""
RECORDS_IN_A_GO = 64
"""Folded without letting others run: about 5 ms."""
COMMAND_MAX_BYTES = 2**16
"""A command of this size makes outputs of several times that: the gates of its policy are reported
one by one, and an output that is larger than its topic allows could never be published."""


class _Received:
    """A record of a chunk as the runner takes it."""

    def __init__(self, record: KafkaRecord, ack: Callable[[], object] | None) -> None:
        self.key = record.key
        self.entry = LogEntry(record.partition, record.offset, record.timestamp, record.value)
        self._ack = ack

    def ack(self) -> None:
        if self._ack is not None:
            self._ack()


class _Handover:
    """Lets a partition of the log have one owner at a time.

    The next owner looks once at what was published, so nothing may be added after that.
    """

    def __init__(self, runner: FoldRunner) -> None:
        self.owned: set[int] = set()
        self._runner = runner
        self._folding = asyncio.Lock()
        self._rebalances = 0
        self._closed = False

    async def take(self, event: EventT[Any]) -> None:
        """Fold a chunk of the log, up to a rebalance: the rest is given to the owner then."""
        rebalances = self._rebalances
        chunk: Chunk = event.message
        last = chunk.records[-1]
        async with self._folding:
            for number, record in enumerate(chunk.records):
                if number % RECORDS_IN_A_GO == 0:
                    await asyncio.sleep(0)
                if rebalances != self._rebalances or self._closed:
                    return
                # Faust's acknowledgement is of the whole chunk.
                await self._runner.take(_Received(record, event.ack if record is last else None))

    async def tick(self) -> None:
        """Checkpoint what is left over from the last records, then let time go on in idle logs."""
        # While records are folded, the runner sees to its checkpoints itself.
        if not self._folding.locked():
            async with self._folding:
                await self._runner.checkpoint()
        await self._runner.tick(self.owned)

    async def give_up(self, partitions: set[int]) -> None:
        """Finish the record that is being folded, then forget the partitions."""
        self.owned -= partitions
        self._rebalances += 1
        try:
            async with asyncio.timeout(HANDOVER_SECONDS), self._folding:
                pass
        except TimeoutError:
            log.warning("partitions are given up in mid-record: Kafka is too slow to answer")
        self._runner.forget(partitions)

    async def close(self) -> None:
        """Finish the record that is being folded, and take no more."""
        self._closed = True
        await self.give_up(set(self.owned))


def create_app(settings: MonitorSettings, telemetry: Telemetry) -> faust.App:
    """The monitor as a Faust application; the topics must exist.

    Args:
        settings: built once.
        telemetry: counts what the monitor does.
    """
    kafka = settings.kafka
    app = faust.App(
        f"{kafka.topic_prefix}driftgate-monitor",
        broker=[f"kafka://{server}" for server in kafka.bootstrap_servers.split(",")],
        datadir=settings.data_dir or None,
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.monitor_id,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 4,
        broker_commit_interval=1.0,
        consumer_max_fetch_size=FETCH_MAX_BYTES,
        stream_buffer_maxsize=waiting_max_events(kafka.service_partitions),
        stream_recovery_delay=0.0,
        # What is not acknowledged is folded again by the next owner: nothing to wait for.
        stream_wait_empty=False,
        web_enabled=False,
    )
    app.transport = Transport(app.conf.broker_consumer, app, chunked=kafka.topic(Topic.LOG))
    io = KafkaIO(kafka)
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw",
           "value_serializer": "raw"}  # fmt: skip
    log_topic = app.topic(kafka.topic(Topic.LOG), internal=False, **raw)
    command_topic = app.topic(kafka.topic(Topic.COMMANDS), internal=False, **raw)
    runner = FoldRunner(io, KafkaCheckpoints(kafka, io), time.monotonic, telemetry)
    handover = _Handover(runner)

    @app.agent(log_topic, name="fold", concurrency=1, supervisor_strategy=CrashingSupervisor)
    async def fold(stream: StreamT[bytes]) -> None:
        # Without automatic acknowledgement and with a supervisor that crashes, a record whose
        # outputs were not delivered is folded again; any other combination skips it.
        async for event in stream.noack().events():
            await handover.take(event)

    @app.agent(
        command_topic, name="commands", concurrency=1, supervisor_strategy=CrashingSupervisor
    )
    async def commands(stream: StreamT[bytes]) -> None:
        async for event in stream.noack().events():
            await _forward(event, io, settings)
            event.ack()

    @app.timer(LOOK_TICK_SECONDS)
    async def tick() -> None:
        telemetry.ticks += 1
        await handover.tick()

    def of_log(partitions: set[TP]) -> set[int]:
        name = log_topic.get_topic_name()
        return {tp.partition for tp in partitions if tp.topic == name}

    @app.on_partitions_assigned.connect
    async def assigned(_app: faust.App, assigned: set[TP], **_: Any) -> None:
        handover.owned = of_log(assigned)
        telemetry.assigned = True

    @app.on_partitions_revoked.connect
    async def revoked(_app: faust.App, revoked: set[TP], **_: Any) -> None:
        await handover.give_up(of_log(revoked))

    @app.on_before_shutdown.connect
    async def stopping(_app: faust.App, **_: Any) -> None:
        await handover.close()
        await io.stop()

    return app


async def _forward(event: EventT[Any], io: KafkaIO, settings: MonitorSettings) -> None:
    """Check a command and put it into the log of its service."""
    message = event.message
    try:
        if len(message.value or b"") > COMMAND_MAX_BYTES:
            raise DecodeError(f"{len(message.value)} bytes, over the limit of {COMMAND_MAX_BYTES}")
        command = cloudevents.decode_json(message.value, OperatorCommand)
    except DecodeError as error:
        log.error("a command is refused: %s", error)
        service = (message.key or b"").decode("utf-8", "replace")[:100] or "unknown"
        await io.append(
            CommandUnreadable(
                service=service,
                partition=message.partition,
                offset=message.offset,
                reason=str(error)[:2000],
            )
        )
        return
    if command.command is Command.START and command.policy is None:
        command = msgspec.structs.replace(command, policy=settings.policy)
    await io.append(CommandRecord(service=command.service, command=command))
