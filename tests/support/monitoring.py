"""Real monitors on a real log: traffic that follows the rollout, and what should come of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from driftgate.commanding import command, new_command
from driftgate.reading import TopicReader, read_all
from schemas import cloudevents
from schemas.control import ControlEvent
from schemas.feedback_batch import FeedbackBatch, FeedbackFlag
from schemas.log import COLUMNS, Command, CommandRecord, LogRecord, RowFlag, encode_log_record
from schemas.policy import Policy, Stage, Windows
from schemas.rollout import Phase, RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic
from streams.fold import LogEntry
from streams.replay import KeyedEntry, fold_records
from tests.support.contract import assert_valid
from tests.support.folding import (
    gate,
    heartbeat,
    measurement,
    operator,
    policy,
    rows_of,
    said,
)
from tests.support.processes import SOON_S
from tests.support.workers import until

__all__ = [
    "OUTPUTS",
    "QUICK",
    "LogWriter",
    "Said",
    "Traffic",
    "as_undisturbed",
    "ask",
    "committed",
    "control_events",
    "log_end",
    "state_of",
    "topic_limit",
    "until_confirmed",
]

OUTPUTS = (Topic.CONTROL, Topic.ROLLOUT, Topic.METRICS, Topic.ALERTS)

QUICK: Policy = policy(
    gate("semantic-errors", min_samples=100),
    gate("coherence", min_samples=100),
    gate("score-vs-control", min_samples=100),
    gate("improvement", min_samples=100),
    stages=[
        Stage(percent=0.0, shadow_percent=25.0, min_seconds=1.0),
        Stage(percent=25.0, min_seconds=1.0),
        Stage(percent=50.0, min_seconds=3600.0),
        Stage(percent=100.0, min_seconds=3600.0),
    ],
    windows=Windows(pane_seconds=0.2, hop_seconds=1.0, window_seconds=2.0),
    confirm_seconds=3.0,
)
"""A rollout to 50 % in seconds; there it stays until somebody or something ends it."""


class LogWriter:
    """Writes records into the log, as analyzers do: plain and idempotent, without transactions."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._topic = kafka.topic(Topic.LOG)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def write(self, *records: LogRecord, partition: int | None = None) -> None:
        """Append records under the keys of their services."""
        await self.raw(
            ((r.service.encode(), encode_log_record(r)) for r in records), partition=partition
        )

    async def raw(
        self, records: Iterable[tuple[bytes | None, bytes | None]], *, partition: int | None = 0
    ) -> None:
        """Append any keys and values."""
        futures = [
            await self._producer.send(self._topic, value, key=key, partition=partition)
            for key, value in records
        ]
        await asyncio.gather(*futures)


class Traffic:
    """A service under load: two workers that follow its rollout, beat and measure.

    Args:
        kafka: where.
        service: whose.
        partition: of the log; where the service's records are.
    """

    def __init__(self, kafka: KafkaSettings, service: str, partition: int = 0) -> None:
        self._kafka = kafka
        self.service = service
        self._partition = partition
        self.candidate: dict[str, Any] = {}
        """Columns of the candidate's rows that are not as good as they might be."""
        self.state: RolloutState | None = None
        """What the workers obey."""
        self.beating = True
        self.beat: dict[str, Any] = {}
        """What the workers' heartbeats say that is not as good as it might be; called when it is a
        function, with the turn."""
        self.ratings: dict[FeedbackFlag, tuple[float, float]] = {}
        """What people say of control's and the candidate's results, by kind: their means."""
        self._offset = itertools.count(0, 80)
        self._rated = itertools.count(0, 40)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Self]:
        """Traffic while the block runs."""
        async with (
            LogWriter(self._kafka) as log,
            TopicReader(self._kafka, Topic.ROLLOUT) as reader,
        ):
            work = (self._follow(reader), self._flow(log))
            tasks = [asyncio.create_task(one) for one in work]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(result, Exception):
                        raise result

    async def _follow(self, reader: TopicReader) -> None:
        while True:
            for record in await reader.poll(0.1):
                if record.key == self.service.encode():
                    self.state = cloudevents.decode_json(record.value, RolloutState)

    async def _flow(self, log: LogWriter) -> None:
        for turn in itertools.count():
            await log.write(*self._records(turn), partition=self._partition)
            await asyncio.sleep(0.05)

    def _records(self, turn: int) -> list[LogRecord]:
        first = next(self._offset)
        arms = (rows_of(range(first, first + 40)), rows_of(range(first + 40, first + 80)))
        arms[1].update(
            (name, np.full(40, value, COLUMNS[name])) for name, value in self.candidate.items()
        )
        for arm in arms:
            # No two prompts are alike, and means without any variance cannot be compared.
            arm["score"] = arm["score"] + np.where(np.arange(40) % 2, 0.01, -0.01).astype("<f4")
        arms[1]["flags"] = arms[1]["flags"] | np.uint16(RowFlag.CANDIDATE)
        rows = {name: np.concatenate([arm[name] for arm in arms]) for name in COLUMNS}
        revision = self.state.revision if self.state else 0
        rollout_id = self.state.rollout_id if self.state else None
        records: list[LogRecord] = [
            measurement(rows, service=self.service, revision=revision, rollout_id=rollout_id)
        ]
        if self.beating and turn % 4 == 0:
            said = {k: v(turn) if callable(v) else v for k, v in self.beat.items()}
            records += [heartbeat(w, revision, service=self.service, **said) for w in ("w1", "w2")]
        records += [self._feedback(kind, means, revision) for kind, means in self.ratings.items()]
        return records

    def _feedback(
        self, kind: FeedbackFlag, means: tuple[float, float], revision: int
    ) -> FeedbackBatch:
        first = next(self._rated)
        arm = np.arange(40) % 2
        spread = np.where(np.arange(40) % 4 < 2, 0.1, -0.1)
        columns = {
            "partition": np.zeros(40, "<i4"),
            "offset": np.arange(first, first + 40, dtype="<i8"),
            "flags": (kind | np.where(arm, FeedbackFlag.CANDIDATE, 0)).astype("u1"),
            "segment": np.zeros(40, "u1"),
            "revision": np.full(40, revision, "<i4"),
            "value": np.clip(np.array(means)[arm] + spread, 0, 1).astype("<f4"),
        }
        return FeedbackBatch(
            service=self.service,
            source_topic="prompts.feedback",
            segments=["rest"],
            **{name: column.tobytes() for name, column in columns.items()},
        )

    async def command(self, kind: Command, id: str) -> None:
        """A command straight into the log, where the monitor would put it."""
        asked = operator(kind, id, service=self.service, policy=QUICK)
        async with LogWriter(self._kafka) as log:
            record = CommandRecord(service=self.service, command=asked)
            await log.write(record, partition=self._partition)

    async def until_phase(self, phase: Phase, *, beyond: int = -1) -> RolloutState:
        """Wait until the service is in a phase, at a revision beyond another."""

        def found() -> RolloutState | None:
            state = self.state
            return state if state and state.phase is phase and state.revision > beyond else None

        state: RolloutState = await until(f"{self.service} is {phase}", found)
        return state

    async def until_stage(self, stage: int) -> None:
        """Wait until the rollout has come so far."""
        await until(
            f"{self.service} is at stage {stage}",
            lambda: self.state is not None and self.state.stage >= stage,
        )


async def ask(
    kafka: KafkaSettings, kind: Command, service: str, within_s: float = SOON_S, **details: Any
) -> ControlEvent:
    """Send a command and wait for its answer, as the command line does."""
    if kind is Command.START:
        details.setdefault("policy", QUICK)
    asked = new_command(kind, service, actor="ann", **details)
    return await command(kafka, asked, timeout_s=within_s)


class Said(NamedTuple):
    """What stands on an output topic."""

    topic: Topic
    partition: int
    key: bytes
    id: str
    value: bytes


async def as_undisturbed(kafka: KafkaSettings, within_s: float = SOON_S) -> list[Said]:
    """Hold what monitors published against an undisturbed fold of the present log.

    Waits until all that follows from the log as it stands now is published, then compares: topics,
    partitions, keys, ids, order, and the values to the byte; nothing missing, nothing twice.

    Returns:
        What follows from the log.
    """
    log = await read_all(kafka, Topic.LOG, committed_only=False)
    expected: dict[tuple[Topic, int], list[Said]] = {}
    ends: dict[int, int] = {}
    for partition in range(kafka.service_partitions):
        records = [r for r in log if r.partition == partition]
        ends[partition] = max((r.offset + 1 for r in records), default=0)
        entries = (
            KeyedEntry(r.key, LogEntry(r.partition, r.offset, r.timestamp, r.value))
            for r in records
        )
        found = [
            (output.cause.offset, service, item)
            for service, (_, outputs) in fold_records(entries).items()
            for output, item in zip(outputs, said(outputs), strict=True)
        ]
        # Stable: the outputs of one record stay in their order.
        for _, service, (topic, id, value) in sorted(found, key=lambda f: f[0]):
            one = Said(Topic(topic), partition, service.encode(), id, value)
            expected.setdefault((one.topic, partition), []).append(one)
    everything = [one for some in expected.values() for one in some]
    deadline = time.monotonic() + within_s
    while True:
        published = await _published(kafka, ends)
        missing = {e.id for e in everything} - {p.id for ps in published.values() for p in ps}
        if not missing or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    lost = [e for e in everything if e.id in missing]
    assert not lost, f"{len(lost)} of {len(everything)} outputs are missing: {lost[:3]}"
    for place in published.keys() | expected.keys():
        ours, theirs = published.get(place, []), expected.get(place, [])
        for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            assert one == other, f"{place}: output {number} differs"
        assert len(ours) == len(theirs), f"{place}: {ours[len(theirs) :][:3]} besides"
    return everything


async def _published(
    kafka: KafkaSettings, ends: dict[int, int]
) -> dict[tuple[Topic, int], list[Said]]:
    """What follows from records of the log before these offsets, as it was published."""
    found: dict[tuple[Topic, int], list[Said]] = {}
    for topic in OUTPUTS:
        for record in await read_all(kafka, topic, committed_only=False):
            assert_valid(record.topic, record.headers, record.value)
            attributes = cloudevents.attributes(record.headers)
            cause, partition, offset = attributes["causationid"].rsplit("/", 2)
            if cause != kafka.topic(Topic.LOG):
                continue
            if int(offset) < ends[int(partition)]:
                found.setdefault((topic, record.partition), []).append(
                    Said(topic, record.partition, record.key, attributes["id"], record.value)
                )
    return found


def control_events(everything: Sequence[Said]) -> list[str]:
    """The types of the control events."""
    values = (one.value for one in everything if one.topic is Topic.CONTROL)
    return [msgspec.json.decode(value)["type"] for value in values]


async def state_of(kafka: KafkaSettings, service: str) -> RolloutState | None:
    """The newest state on the rollout topic."""
    records = await read_all(kafka, Topic.ROLLOUT, committed_only=False)
    states = [cloudevents.decode_json(r.value, RolloutState) for r in records]
    return next((s for s in reversed(states) if s.service == service), None)


async def until_confirmed(kafka: KafkaSettings, times: int = 1) -> None:
    """Wait until so many rollbacks are confirmed."""

    async def found() -> bool:
        records = await read_all(kafka, Topic.CONTROL, committed_only=False)
        return sum(b'"rollback.confirmed"' in r.value for r in records) >= times

    await until(f"{times} rollbacks are confirmed", found)


async def log_end(kafka: KafkaSettings, partition: int = 0) -> int:
    """The end of the log."""
    tp = TopicPartition(kafka.topic(Topic.LOG), partition)
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        return int((await consumer.end_offsets([tp]))[tp])


@asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administrator."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def committed(kafka: KafkaSettings, partition: int = 0) -> int:
    """The offset of the log up to which the monitor's group has committed."""
    async with admin(kafka) as client:
        offsets = await client.list_consumer_group_offsets(f"{kafka.topic_prefix}driftgate-monitor")
    found = offsets.get(TopicPartition(kafka.topic(Topic.LOG), partition))
    return found.offset if found else -1


async def topic_limit(kafka: KafkaSettings, topic: Topic, max_message_bytes: int) -> None:
    """Set how large a record a topic takes: a small limit makes every delivery to it fail."""
    # All settings of the topic: what is left out is reset.
    config = next(spec.config() for spec in TOPICS if spec.topic is topic)
    config["max.message.bytes"] = str(max_message_bytes)
    resource = ConfigResource(ConfigResourceType.TOPIC, kafka.topic(topic), config)
    async with admin(kafka) as client:
        await client.alter_configs([resource])
