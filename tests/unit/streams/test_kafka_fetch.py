from __future__ import annotations

import asyncio
from pathlib import Path

import faust
import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP
from mode.utils.queues import FlowControlEvent, FlowControlQueue

from schemas.policy import default_policy
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.app import create_app
from streams.kafka_fetch import (
    FETCH_MAX_BYTES,
    FETCH_MAX_WAIT_MS,
    Chunk,
    as_chunks,
    waiting_max_events,
)
from streams.settings import MonitorSettings
from streams.telemetry import Telemetry

LOG = TP(Topic.LOG, 0)
COMMANDS = TP(Topic.COMMANDS, 0)


@pytest.fixture
def app(tmp_path: Path) -> faust.App:
    """The monitor's, connected to nothing."""
    settings = MonitorSettings(
        kafka=KafkaSettings(),
        monitor_id="monitor-1",
        policy=default_policy(),
        data_dir=str(tmp_path),
    )
    return create_app(settings, Telemetry())


def fetched(tp: TP, *offsets: int) -> list[ConsumerRecord]:
    """Records as the Kafka client has them."""
    return [
        ConsumerRecord(
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
            timestamp=1_800_000_000_123 + offset,
            timestamp_type=1,
            key=b"chat",
            value=b"%d" % offset,
            checksum=None,
            serialized_key_size=4,
            serialized_value_size=1,
            headers=(),
        )
        for offset in offsets
    ]


def test_the_monitor_fetches_with_its_own_bounds(app: faust.App) -> None:
    """The consumer that Faust makes waits shortly and brings much: a backlog is not held up."""

    async def bounds() -> tuple[int, int]:
        thread = app.consumer._new_consumer_thread()
        consumer = thread._create_consumer(app.consumer.loop)
        await consumer.stop()
        return consumer._fetch_max_wait_ms, consumer._max_partition_fetch_bytes

    assert asyncio.run(bounds()) == (FETCH_MAX_WAIT_MS, FETCH_MAX_BYTES)


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, 8, 12, 64])
def test_every_partition_has_brought_a_chunk_before_one_is_held_back(partitions: int) -> None:
    """By Faust's own rule when a queue is under pressure."""
    queue = FlowControlQueue(
        maxsize=waiting_max_events(partitions), flow_control=FlowControlEvent()
    )
    assert queue.pressure_high_size == partitions + 4
    assert queue.pressure_drop_size >= 2


async def test_what_a_fetch_brings_of_the_log_is_one_message(app: faust.App) -> None:
    """It has all records in their order, whatever is missing between them; commands stay single."""
    log, commands = fetched(LOG, 5, 6, 9), fetched(COMMANDS, 1, 2)
    found = as_chunks({LOG: log, COMMANDS: commands, TP(Topic.LOG, 1): []}, LOG.topic)
    assert found[COMMANDS] == commands
    assert found[TP(Topic.LOG, 1)] == []
    (one,) = found[LOG]
    chunk = app.consumer._to_message(LOG, one)
    assert isinstance(chunk, Chunk)
    assert list(chunk.records) == log
    assert (chunk.offset, chunk.tp, chunk.key) == (9, LOG, b"chat")
    single = app.consumer._to_message(COMMANDS, commands[0])
    assert (type(single) is Chunk, single.offset, single.value) == (False, 1, b"1")


async def test_a_chunk_is_committed_as_a_whole_once_it_is_acknowledged(app: faust.App) -> None:
    """Nothing before, and then up to its last record; offsets that do not exist hold up nothing."""
    consumer = app.consumer
    first, second = (
        consumer._to_message(LOG, as_chunks({LOG: fetched(LOG, *offsets)}, LOG.topic)[LOG][0])
        for offsets in ([0, 1, 2], [3, 7, 8])
    )
    app.topics._acking_topics.add(LOG.topic)
    for message in (first, second):
        await consumer._add_gap(LOG, 1, message.offset)
        assert consumer._new_offset(LOG) is None
    assert consumer.ack(first)
    assert consumer._new_offset(LOG) == 3
    assert consumer._new_offset(LOG) is None
    assert consumer.ack(second)
    assert consumer._new_offset(LOG) == 9


async def test_commands_are_committed_one_by_one(app: faust.App) -> None:
    """As Faust does it: up to the first that is not acknowledged."""
    consumer = app.consumer
    app.topics._acking_topics.add(COMMANDS.topic)
    messages = [consumer._to_message(COMMANDS, one) for one in fetched(COMMANDS, 0, 1, 2)]
    assert consumer.ack(messages[0])
    assert consumer.ack(messages[2])
    assert consumer._new_offset(COMMANDS) == 1
