"""Reads the topics into the read model and the database, for as long as the console runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import DecodeError
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.console.decode import decode
from streams.console.hub import Hub
from streams.console.model import ConsoleModel, Section
from streams.console.rows import Row
from streams.console.store import Place, Store
from streams.errors import BrokerAwayError, StoreError

__all__ = ["Feed", "FeedState", "Link", "Prepare"]

log = logging.getLogger("driftgate.console")

RETRY_S = (1.0, 2.0, 5.0)
"""Pauses before the broker is tried again; the last one repeats. Longer would be dead time on a
page that somebody is waiting in front of."""
KEEP_S = 1.0
"""What was read is kept so often: what a crash reads again, and a twentieth of the writes that
keeping each poll would make."""
KEEP_ROWS = 5_000
"""Or after so many rows, when it catches up."""
CHECK_S = 3.0
"""How often the broker is asked where the topics end: an aiokafka consumer without a group does not
say that its broker is gone."""
CHECK_TIMEOUT_S = 5.0
LOG_BACK_MS = 3_600_000
"""A new database begins so far back in the log, which is by far the largest topic: it gives worker
curves and score distributions only. All other topics are read from as far back as they are kept."""
_POLL_MS = 200
_POLL_RECORDS = 500

LANES = (
    (Topic.ROLLOUT, Topic.CONTROL, Topic.ALERTS, Topic.CURATED, Topic.METRICS),
    (Topic.LOG,),
)
"""Topics that are read side by side: a long log to catch up with holds up no decision."""
_WHOLE = frozenset({Topic.ROLLOUT, Topic.CONTROL, Topic.ALERTS, Topic.CURATED})
"""Read from their beginning by a new database, however old."""


class Link(StrEnum):
    """How the console and the broker stand."""

    AWAY = "away"
    CATCHING_UP = "catching_up"
    LIVE = "live"


class FeedState(msgspec.Struct):
    """What the page says of it."""

    link: Link = Link.AWAY
    since_ms: int = 0
    problem: str = "not connected yet"
    lag: int = 0
    """Records that are still to be read."""
    history_problem: str = ""
    """Why nothing is kept at present."""
    records: int = 0
    undecodable: int = 0


class Prepare(Protocol):
    """Waits for nothing: makes sure of the broker and its topics, or says what is wrong."""

    def __call__(self) -> Awaitable[str]:
        """The id of the cluster.

        Raises:
            BrokerAwayError: no broker, or topics that are not as they must be.
        """


class Feed:
    """The one reader.

    Args:
        kafka: where.
        store: what was read goes there.
        model: and there, first.
        hub: is told what has changed.
        prepare: makes sure of the broker and its topics.
        retention_ms: how far back a new database reads the metrics.
        now_ms: wall clock, ms since the epoch.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        store: Store,
        model: ConsoleModel,
        hub: Hub,
        prepare: Prepare,
        *,
        retention_ms: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.state = FeedState(since_ms=now_ms())
        self._kafka = kafka
        self._store = store
        self._model = model
        self._hub = hub
        self._prepare = prepare
        self._retention_ms = retention_ms
        self._now_ms = now_ms
        self._positions: dict[Place, int] = {}
        self._lags: list[int] = [0] * len(LANES)

    async def run(self) -> None:
        """Read until cancelled; a broker that is away is tried again and again."""
        attempt = 0
        while True:
            try:
                cluster = await self._prepare()
                await self._begin(cluster)
                attempt = 0
                async with asyncio.TaskGroup() as group:
                    for number in range(len(LANES)):
                        group.create_task(self._read(number))
            except* (KafkaError, BrokerAwayError, StoreError, TimeoutError, OSError) as failures:
                error = _first(failures)
                self._away(str(error) or repr(error))
            pause_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
            attempt += 1
            await asyncio.sleep(pause_s)

    def _away(self, problem: str) -> None:
        if self.state.link is not Link.AWAY:
            self.state.since_ms = self._now_ms()
        if self.state.problem != problem:
            log.warning("%s; trying again", problem)
        self.state.link, self.state.problem = Link.AWAY, problem
        self._hub.told()

    async def _begin(self, cluster: str) -> None:
        known = await asyncio.to_thread(self._store.cluster)
        if known != cluster:
            if known is not None:
                log.warning(
                    "the broker is of another cluster (%s) than what is kept (%s): the history "
                    "begins anew",
                    cluster, known,
                )  # fmt: skip
            await asyncio.to_thread(self._store.begin_cluster, cluster)
        self._positions = await asyncio.to_thread(self._store.positions)
        # What was taken and could not be kept comes again, and must not be taken twice.
        self._model.restore(await asyncio.to_thread(self._store.items))
        for service in self._model.services:
            self._hub.changed(service, Section)
        self.state.link, self.state.problem = Link.CATCHING_UP, ""
        self.state.since_ms = self._now_ms()
        self._lags = [1] * len(LANES)
        self._hub.told()

    async def _read(self, number: int) -> None:
        topics = {self._kafka.topic(topic): topic for topic in LANES[number]}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=_POLL_MS,
        )
        await consumer.start()
        try:
            places = await self._assign(consumer, topics)
            lane = _Lane(self, consumer, topics, places, number)
            await lane.run()
        finally:
            await consumer.stop()

    async def _assign(
        self, consumer: AIOKafkaConsumer, topics: dict[str, Topic]
    ) -> list[TopicPartition]:
        places = []
        for name in topics:
            # Asked for by name, so that the answer is there before it is used.
            await consumer._client.force_metadata_update()  # noqa: SLF001
            numbers = consumer.partitions_for_topic(name)
            if not numbers:
                raise BrokerAwayError(f"topic {name} is missing")
            places += [TopicPartition(name, number) for number in sorted(numbers)]
        consumer.assign(places)
        for place, offset in (await self._starts(consumer, topics, places)).items():
            consumer.seek(place, offset)
        return places

    async def _starts(
        self,
        consumer: AIOKafkaConsumer,
        topics: dict[str, Topic],
        places: Sequence[TopicPartition],
    ) -> dict[TopicPartition, int]:
        """Where to go on, by partition."""
        first = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        starts = {}
        for tp in places:
            kept = self._positions.get(Place(tp.topic, tp.partition))
            if kept is None or kept > ends[tp]:
                if kept is not None:
                    log.warning("%s was made anew: it is read from its beginning", tp)
                starts[tp] = await self._first(consumer, topics[tp.topic], tp, first[tp], ends[tp])
                continue
            if kept < first[tp]:
                log.warning(
                    "%s: %d records were deleted by its retention before they were read",
                    tp, first[tp] - kept,
                )  # fmt: skip
            starts[tp] = max(kept, first[tp])
        return starts

    async def _first(
        self, consumer: AIOKafkaConsumer, topic: Topic, tp: TopicPartition, begin: int, end: int
    ) -> int:
        if topic in _WHOLE:
            return begin
        back_ms = LOG_BACK_MS if topic is Topic.LOG else self._retention_ms
        found = await consumer.offsets_for_times({tp: max(0, self._now_ms() - back_ms)})
        return found[tp].offset if found.get(tp) else end

    async def keep(self, rows: list[Row], positions: dict[Place, int]) -> bool:
        """Write rows and positions; whether that was possible."""
        try:
            await asyncio.to_thread(self._store.write, rows, positions)
        except StoreError as error:
            if self.state.history_problem != str(error):
                log.error("%s; it is tried again", error)
            self.state.history_problem = str(error)
            return False
        self.state.history_problem = ""
        return True

    def take(self, topic: Topic, record: Any) -> Iterable[Row]:
        """Take a record into the model; the rows to keep."""
        self.state.records += 1
        try:
            event = decode(topic, record.key, record.value, record.headers)
            if event is None:
                return []
            change = self._model.take(event, record.timestamp)
        except DecodeError as error:
            self.state.undecodable += 1
            log.warning(
                "%s/%d offset %d cannot be read and is passed over: %s",
                record.topic, record.partition, record.offset, error,
            )  # fmt: skip
            return []
        self._hub.changed(change.service, change.sections)
        return change.rows

    def lags(self, number: int, lag: int) -> None:
        """How many records a lane has yet to read."""
        self._lags[number] = lag
        self.state.lag = sum(self._lags)
        if self.state.link is Link.CATCHING_UP and self.state.lag == 0:
            self.state.link, self.state.since_ms = Link.LIVE, self._now_ms()
            log.info("caught up with the topics")
            self._hub.told()


class _Lane:
    """A consumer and what it has read that is not kept yet."""

    def __init__(
        self,
        feed: Feed,
        consumer: AIOKafkaConsumer,
        topics: dict[str, Topic],
        places: Sequence[TopicPartition],
        number: int,
    ) -> None:
        self._feed = feed
        self._consumer = consumer
        self._topics = topics
        self._places = places
        self._number = number
        self._rows: list[Row] = []
        self._positions: dict[Place, int] = {}
        self._kept_at = self._checked_at = time.monotonic()

    async def run(self) -> None:
        """Read until the broker is gone, or cancelled; what was read is kept in the end."""
        try:
            await self._check()
            while True:
                # While nothing can be kept nothing more is read: it stands in the topics.
                if len(self._rows) < 2 * KEEP_ROWS:
                    await self._poll()
                else:
                    await asyncio.sleep(KEEP_S)
                now = time.monotonic()
                if now - self._kept_at >= KEEP_S or len(self._rows) >= KEEP_ROWS:
                    await self._keep()
                if now - self._checked_at >= CHECK_S:
                    await self._check()
        finally:
            await self._keep()

    async def _poll(self) -> None:
        found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        for tp, records in found.items():
            topic = self._topics[tp.topic]
            for record in records:
                self._rows.extend(self._feed.take(topic, record))
            self._positions[Place(tp.topic, tp.partition)] = records[-1].offset + 1
        # Pages are served between two polls, also while there is much to catch up with.
        await asyncio.sleep(0)

    async def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._positions and await self._feed.keep(self._rows, self._positions):
            self._rows, self._positions = [], {}

    async def _check(self) -> None:
        """Ask where the topics end.

        Raises:
            TimeoutError: the broker does not answer.
        """
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                ends = await self._consumer.end_offsets(self._places)
                read = {tp: await self._consumer.position(tp) for tp in self._places}
        except TimeoutError as error:
            raise BrokerAwayError("the broker does not answer any more") from error
        if any(read[tp] > end for tp, end in ends.items()):
            raise BrokerAwayError("a topic was made anew")
        self._checked_at = time.monotonic()
        self._feed.lags(self._number, sum(end - read[tp] for tp, end in ends.items()))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
