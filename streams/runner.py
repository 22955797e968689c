"""Runs the fold over the partitions that this monitor owns, and brings it back after a crash.

For each record: fold it, wait until its outputs are delivered, and remember to acknowledge it.
About once a second: write a checkpoint of the state and of where it stands, wait until that is
delivered, and acknowledge. A crash between the two folds some records again; an output that is
on its topic already is then not sent a second time, because its id is derived from the record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from schemas.log import Tick
from schemas.topics import Topic
from streams.errors import RecoveryError
from streams.fold import LogEntry, step
from streams.kafka_io import KafkaIO
from streams.outputs import Output
from streams.rollout import ACTIVE
from streams.state import ServiceState, new_state, restore, snapshot
from streams.telemetry import Telemetry

__all__ = ["LOOK_TICK_SECONDS", "Checkpoints", "FoldRunner", "Received"]

log = logging.getLogger("driftgate.monitor")

OUTPUT_TOPICS = (Topic.CONTROL, Topic.ROLLOUT, Topic.METRICS, Topic.ALERTS)
CHECKPOINT_SECONDS = 1.0
"""More often costs writes, less often lengthens what a crash folds again."""
TICK_SECONDS = 1.0
"""How long a log may be idle before its owner writes a tick: the finest step of time-outs."""
LOOK_TICK_SECONDS = 0.05
"""The same where measured rows wait for the next look: more than two looks' time."""
IDLE_TICK_SECONDS = 60.0
"""The same for a service with neither a rollout nor a live worker."""
_MARKER_KEY = b"partition"
CLOCK_SKEW_MS = 60_000
"""How far the clocks of two brokers may differ when outputs are looked up by time."""


class Received(Protocol):
    """A record of the log, with its acknowledgement."""

    entry: LogEntry
    key: bytes | None

    def ack(self) -> None:
        """Allow its offset to be committed."""


class Checkpoints(Protocol):
    """Where checkpoints are kept: values by key for each partition of the log."""

    async def load(self, partition: int) -> Mapping[bytes, bytes]:
        """The newest value of each key."""

    async def save(self, partition: int, values: Mapping[bytes, bytes]) -> None:
        """Write values, in their order, and wait until all are delivered."""


class _Marker(msgspec.Struct, frozen=True):
    """Where the checkpoint of a partition stands."""

    last_offset: int
    services: dict[str, int]
    """The last offset in the state of each."""


class _Partition:
    """The fold of one partition of the log."""

    def __init__(self, services: dict[str, ServiceState], next_offset: int) -> None:
        self.services = services
        self.next_offset = next_offset
        self.delivered: set[str] = set()
        """Ids of outputs that stood on their topics already when we took over."""
        self.dirty: set[str] = set()
        self.unacknowledged: list[Received] = []
        self.checkpoint_at = 0.0
        self.heard_at: dict[str, float] = {}

    def fold(self, key: bytes | None, entry: LogEntry) -> list[Output]:
        """Fold one record; the outputs that are not on their topics yet."""
        self.next_offset = entry.offset + 1
        if not key:
            log.error(
                "log partition %d offset %d has no key: it is no service's and is passed over",
                entry.partition,
                entry.offset,
            )
            return []
        service = key.decode("utf-8", "replace")
        state = self.services.get(service)
        if state is None:
            state = self.services[service] = new_state(service)
        unreadable = state.undecodable
        outputs = step(state, entry)
        if state.undecodable > unreadable:
            log.error(
                "log partition %d offset %d (service %s) cannot be read: counted and passed over",
                entry.partition,
                entry.offset,
                service,
            )
        self.dirty.add(service)
        return [o for o in outputs if o.id not in self.delivered]


class FoldRunner:
    """The monitor's work, without Faust.

    Args:
        io: Kafka.
        checkpoints: where they are kept.
        monotonic: seconds; only says when to checkpoint and tick, never what is decided.
        telemetry: counts what is said.
    """

    def __init__(
        self,
        io: KafkaIO,
        checkpoints: Checkpoints,
        monotonic: Callable[[], float],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._io = io
        self._checkpoints = checkpoints
        self._monotonic = monotonic
        self._partitions: dict[int, _Partition] = {}
        self._wake_at: dict[int, float] = {}
        self._telemetry = telemetry or Telemetry()

    async def take(self, received: Received) -> None:
        """Fold one record of the log and publish what follows from it."""
        number = received.entry.partition
        try:
            await self._take(number, received)
        except BaseException:
            # A state whose outputs were not delivered must never become a checkpoint.
            self._partitions.pop(number, None)
            raise
        await self.checkpoint()

    async def _take(self, number: int, received: Received) -> None:
        entry = received.entry
        partition = self._partitions.get(number)
        if partition is None:
            partition = await self._recover(entry)
            self._partitions[number] = partition
        if entry.offset > partition.next_offset:
            await self._fill_gap(partition, entry)
        if entry.offset >= partition.next_offset:
            await self._fold(partition, received.key, entry)
        partition.unacknowledged.append(received)

    async def checkpoint(self) -> None:
        """Write the checkpoints that are due; not while a record is being folded."""
        for number, partition in list(self._partitions.items()):
            due_at = partition.checkpoint_at + CHECKPOINT_SECONDS
            if partition.unacknowledged and self._monotonic() >= due_at:
                await self._checkpoint(number, partition)

    def forget(self, partitions: set[int]) -> None:
        """Drop partitions that another monitor owns now; their state is in the checkpoint."""
        for number in partitions:
            partition = self._partitions.pop(number, None)
            self._wake_at.pop(number, None)
            if partition is not None:
                self._telemetry.forget(partition.services)

    async def tick(self, owned: Iterable[int]) -> None:
        """Write a tick into each log that has been idle, so that its time goes on.

        Args:
            owned: the partitions of the log that this monitor owns.
        """
        now = self._monotonic()
        for number in owned:
            if number not in self._partitions and now >= self._wake_at.setdefault(
                number, now + TICK_SECONDS
            ):
                self._wake_at[number] = now + IDLE_TICK_SECONDS
                await self._wake(number)
        for number, partition in list(self._partitions.items()):
            for service, state in list(partition.services.items()):
                watched = (
                    state.rollout.phase in ACTIVE
                    or state.confirmation is not None
                    or bool(state.live_workers())
                )
                limit = TICK_SECONDS if watched else IDLE_TICK_SECONDS
                if state.pending:
                    limit = LOOK_TICK_SECONDS
                if now - partition.heard_at.setdefault(service, now) >= limit:
                    partition.heard_at[service] = now
                    await self._io.append(Tick(service=service), partition=number)

    async def _wake(self, number: int) -> None:
        """Tick for a service of a partition that nothing has come from since we own it.

        Its services are not known before a first record: if all of them are silent, this is it.
        """
        key = await self._io.last_key(Topic.LOG, number)
        if key is not None:
            await self._io.append(Tick(service=key.decode("utf-8", "replace")), partition=number)

    async def _fold(self, partition: _Partition, key: bytes | None, entry: LogEntry) -> None:
        outputs = partition.fold(key, entry)
        if key:
            partition.heard_at[key.decode("utf-8", "replace")] = self._monotonic()
        if not outputs:
            # Most records say nothing.
            return
        await self._io.publish(outputs, entry.partition)
        self._telemetry.take(outputs)
        for output in outputs:
            if output.topic in (Topic.CONTROL, Topic.ALERTS):
                log.info("%s", _sentence(output), extra=_about(output))

    async def _checkpoint(self, number: int, partition: _Partition) -> None:
        values = {
            _service_key(service): snapshot(partition.services[service])
            for service in sorted(partition.dirty)
        }
        reached = {name: state.last_offset for name, state in sorted(partition.services.items())}
        # Last: a crash before it leaves newer states under an older marker, which is harmless,
        # since each state knows which records it has folded.
        marker = _Marker(partition.next_offset - 1, reached)
        await self._checkpoints.save(
            number, {**values, _MARKER_KEY: msgspec.msgpack.encode(marker)}
        )
        for received in partition.unacknowledged:
            received.ack()
        partition.unacknowledged.clear()
        partition.dirty.clear()
        partition.checkpoint_at = self._monotonic()

    async def _recover(self, first: LogEntry) -> _Partition:
        """The fold of a partition as it stood when its last owner left it.

        The checkpoint is held against the first record that we are given, which is the committed
        offset: everything before that was acknowledged, so the checkpoint must reach up to it.
        """
        number = first.partition
        beginning = await self._io.beginning(Topic.LOG, number)
        try:
            partition = self._restore(number, beginning, await self._checkpoints.load(number))
            if partition is None and first.offset > beginning:
                raise RecoveryError("records are committed, but there is no checkpoint")
        except RecoveryError as error:
            log.warning(
                "partition %d: %s; rebuilding the state from the log, offsets %d to %d",
                number,
                error,
                beginning,
                first.offset - 1,
            )
            partition = await self._rebuild(number, beginning, first.offset)
        if partition is None:
            partition = _Partition({}, beginning)
        partition.checkpoint_at = self._monotonic()
        since_ms = await self._time_of(number, partition.next_offset, first)
        for topic in OUTPUT_TOPICS:
            partition.delivered |= await self._io.event_ids_since(
                topic, number, since_ms - CLOCK_SKEW_MS
            )
        log.info(
            "partition %d: %d services, from log offset %d",
            number,
            len(partition.services),
            partition.next_offset,
        )
        return partition

    def _restore(
        self, number: int, beginning: int, values: Mapping[bytes, bytes]
    ) -> _Partition | None:
        raw = values.get(_MARKER_KEY)
        if raw is None:
            return None
        try:
            marker = msgspec.msgpack.decode(raw, type=_Marker)
        except msgspec.MsgspecError as error:
            raise RecoveryError(f"the checkpoint cannot be read: {error}") from error
        services = {}
        for service, reached in marker.services.items():
            data = values.get(_service_key(service))
            if data is None:
                raise RecoveryError(f"the checkpoint has no state of service {service!r}")
            services[service] = restore(data)
            # A monitor that was taken for dead and woke up may have written over a newer one.
            if services[service].last_offset < reached:
                raise RecoveryError(f"the checkpoint has an old state of service {service!r}")
        if marker.last_offset + 1 < beginning:
            log.warning(
                "partition %d: the log begins at offset %d, after the checkpoint (%d): retention "
                "has deleted records that were never folded",
                number,
                beginning,
                marker.last_offset,
            )
        return _Partition(services, max(marker.last_offset + 1, beginning))

    async def _rebuild(self, number: int, beginning: int, end: int) -> _Partition:
        """Fold the acknowledged part of the log again, silently: its outputs were delivered."""
        partition = _Partition({}, beginning)
        async for record in self._io.read(Topic.LOG, number, start=beginning, end=end):
            partition.fold(record.key, _entry(record))
        partition.next_offset = end
        return partition

    async def _fill_gap(self, partition: _Partition, entry: LogEntry) -> None:
        """Fold records that were not given to us, so that a jump loses nothing."""
        log.warning(
            "partition %d: offsets %d to %d were not delivered to us; reading them from the log",
            entry.partition,
            partition.next_offset,
            entry.offset - 1,
        )
        start = partition.next_offset
        async for record in self._io.read(
            Topic.LOG, entry.partition, start=start, end=entry.offset
        ):
            await self._fold(partition, record.key, _entry(record))
        partition.next_offset = entry.offset

    async def _time_of(self, number: int, offset: int, first: LogEntry) -> int:
        """The broker's time stamp in ms of a record of the log, at the latest that of ``first``."""
        if offset < first.offset:
            async for record in self._io.read(Topic.LOG, number, start=offset, end=first.offset):
                return int(record.timestamp)
        return first.timestamp_ms


class _KafkaRecord(Protocol):
    partition: int
    offset: int
    timestamp: int
    value: bytes | None


def _entry(record: _KafkaRecord) -> LogEntry:
    return LogEntry(record.partition, record.offset, record.timestamp, record.value)


def _service_key(service: str) -> bytes:
    return f"service/{service}".encode()


def _about(output: Output) -> dict[str, object]:
    """What ties a log line to the events: the names are those of the CloudEvents headers."""
    cause = f"{Topic.LOG}/{output.cause.partition}/{output.cause.offset}"
    return {
        "service": output.event.service,
        "event_id": output.id,
        "correlationid": output.rollout_id,
        "causationid": cause,
    }


def _sentence(output: Output) -> str:
    event = output.event
    kind = event.__struct_config__.tag or type(event).__name__
    text = getattr(event, "reason", None) or getattr(event, "summary", "")
    return f"{event.service}: {kind}: {text}"
