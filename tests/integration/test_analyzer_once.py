"""Every prompt yields one result, and is measured once, whatever happens on the way (M1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import CoordinationType
from aiokafka.protocol.group import LeaveGroupRequest

from analyzer.settings import AnalyzerSettings, Delivery
from analyzer.worker import Worker, WorkerFencedError
from schemas.prompts import SourcePosition
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic
from tests.support.topics import (
    Prompt,
    heartbeats,
    measured,
    outcome,
    prompt,
    publish_state,
    submit,
    wait_for_outcome,
)
from tests.support.workers import (
    HeldEncoder,
    hashing_model,
    model_of,
    rolling,
    settings_of,
    until,
    working,
)


def prompts(count: int, name: str = "p") -> list[Prompt]:
    return [prompt(f"Explain subject number {n} to a child", f"{name}-{n}") for n in range(count)]


def places(sent: Sequence[SourcePosition]) -> list[tuple[int, int]]:
    return sorted((one.partition, one.offset) for one in sent)


async def committed(settings: AnalyzerSettings) -> dict[int, int]:
    """The group's offsets by partition."""
    topic = settings.kafka.topic(Topic.PROMPTS)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=settings.group_id,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        numbers = range(settings.kafka.prompt_partitions)
        found = {n: await consumer.committed(TopicPartition(topic, n)) for n in numbers}
    finally:
        await consumer.stop()
    return {number: offset for number, offset in found.items() if offset is not None}


@asynccontextmanager
async def refusing(kafka: KafkaSettings, topic: Topic) -> AsyncIterator[None]:
    """While the block runs, the broker refuses every record on a topic as too large."""
    spec = next(spec for spec in TOPICS if spec.topic is topic)

    async def limit(max_bytes: int) -> None:
        config = spec.config() | {"max.message.bytes": str(max_bytes)}
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            name = kafka.topic(topic)
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
            asked = ConfigResource(ConfigResourceType.TOPIC, name)

            async def holds() -> bool:
                """A broker takes a setting over a moment after it has said yes."""
                (answer,) = await admin.describe_configs([asked])
                ((*_, entries),) = answer.resources
                return {e[0]: e[1] for e in entries}["max.message.bytes"] == str(max_bytes)

            await until(f"{name} takes {max_bytes} bytes", holds)
        finally:
            await admin.close()

    await limit(300)  # not below 78: the markers of transactions must pass
    try:
        yield
    finally:
        await limit(spec.max_message_bytes)


async def throw_out(worker: Worker, settings: AnalyzerSettings) -> None:
    """What the group does with a member that it has not heard of for too long."""
    client = worker._consumer._client
    node = await client.coordinator_lookup(CoordinationType.GROUP, settings.group_id)
    member = worker._consumer._coordinator.member_id
    await client.send(node, LeaveGroupRequest(settings.group_id, member))


@pytest.mark.parametrize("max_poll_records", [1, 7, 64])
async def test_every_prompt_yields_one_result(kafka: KafkaSettings, max_poll_records: int) -> None:
    """Read committed, each source position stands once, and its offset is committed with it."""
    settings = settings_of(kafka, max_poll_records=max_poll_records)
    sent = await submit(kafka, prompts(50))
    async with working(settings):
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert not found.rejected
    rows = await measured(kafka)
    assert rows.positions == places(sent)
    assert rows.rows == len(sent)
    ends = {n: sum(one.partition == n for one in sent) for n in range(2)}
    assert await committed(settings) == {n: end for n, end in ends.items() if end}


async def test_results_carry_the_key_and_cause_of_their_prompt(kafka: KafkaSettings) -> None:
    """A result is keyed as its prompt, and its id and causation name the source."""
    [source] = await submit(kafka, prompts(1))
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, 1)
    [record] = found.records
    headers = {name: value.decode() for name, value in record.headers}
    assert record.key == b"p-0"
    assert headers["ce_id"] == headers["ce_causationid"] == source.event_id()
    assert found.enriched[0].id == source.event_id()


async def test_results_stand_in_the_partition_of_their_prompt(kafka: KafkaSettings) -> None:
    """Whatever partition a producer chose for a key: its results are in order, refusals too."""
    sent = await submit(kafka, [*prompts(6), (b"p-0", b"{")], partition=0)
    sent += await submit(kafka, [*prompts(6), (b"p-0", b"{")], partition=1)
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    sources = {one.id: one.source for one in (*found.enriched, *found.rejected)}
    assert len(sources) == len(found.records) == len(sent)
    last: dict[tuple[str, int], int] = {}
    for record in found.records:
        source = sources[dict(record.headers)["ce_id"].decode()]
        assert record.partition == source.partition
        assert last.get((record.topic, record.partition), -1) < source.offset
        last[record.topic, record.partition] = source.offset


async def test_restart_goes_on_where_the_last_one_stopped(kafka: KafkaSettings) -> None:
    """A worker that is stopped and started again under its id repeats nothing and leaves none."""
    settings = settings_of(kafka, static_member=True, max_poll_records=5)
    sent = await submit(kafka, prompts(60))
    async with working(settings):
        await wait_for_outcome(kafka, 5)
    sent += await submit(kafka, prompts(20, "q"))
    async with working(settings):
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert (await measured(kafka)).positions == places(sent)


async def test_workers_come_and_go_under_load(kafka: KafkaSettings) -> None:
    """Each rebalance in a stream of prompts leaves every prompt with one result."""
    sent: list[SourcePosition] = []
    stop = asyncio.Event()

    async def stream() -> None:
        while not stop.is_set():
            sent.extend(await submit(kafka, prompts(5, f"s{len(sent)}")))

    producing = asyncio.create_task(stream())
    async with working(settings_of(kafka, "w-1", max_poll_records=4)):
        for number in range(3):
            async with working(settings_of(kafka, f"w-{number + 2}", max_poll_records=4)) as other:
                await until("the second worker works", lambda other=other: other._prompts > 8)
        stop.set()
        await producing
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert (await measured(kafka)).positions == places(sent)
    assert {one.worker_id for one in found.enriched} == {f"w-{n}" for n in range(1, 5)}


async def test_aborted_batch_is_not_lost_and_counts_once(kafka: KafkaSettings) -> None:
    """The first batch is refused by the broker: nothing of it shows, though it is in the log.

    Once the broker takes it, each prompt has one result and one counted row.
    """
    settings = settings_of(kafka)
    # In one partition, so that one poll has them all.
    sent = await submit(kafka, [*prompts(12), (b"bad", b"{")], partition=0)
    async with AsyncExitStack() as worker:
        async with refusing(kafka, Topic.ENRICHED):
            await worker.enter_async_context(working(settings))

            async def twice() -> bool:
                return (await measured(kafka)).rows >= 2 * len(sent)

            await until("the batch is tried again", twice)
            assert not (await outcome(kafka)).enriched
        found = await wait_for_outcome(kafka, len(sent))
        more = await submit(kafka, prompts(6, "r"))
        found = await wait_for_outcome(kafka, len(sent) + len(more))
    assert found.positions == sorted(sent + more)
    assert (await measured(kafka)).positions == places(sent + more)


async def test_measurement_is_in_the_log_before_the_commit(kafka: KafkaSettings) -> None:
    """While results are refused, their rows are in the log, and no offset is committed.

    A worker that is stopped in the middle of it ends in order.
    """
    settings = settings_of(kafka)
    async with refusing(kafka, Topic.ENRICHED), working(settings) as worker:
        sent = await submit(kafka, prompts(6), partition=0)

        async def in_log() -> bool:
            return (await measured(kafka)).positions == places(sent)

        await until("the rows are in the log", in_log)
        assert not (await outcome(kafka)).records
        assert not await committed(settings)
        await until("it tries again", lambda: len(worker._under_way))


async def test_nothing_is_committed_that_is_not_in_the_log(kafka: KafkaSettings) -> None:
    """While the log refuses the measurements, no result shows and no offset is committed."""
    settings = settings_of(kafka)
    sent = await submit(kafka, prompts(6))
    async with AsyncExitStack() as worker:
        async with refusing(kafka, Topic.LOG):
            analyzer = await worker.enter_async_context(working(settings))
            await until("it has tried twice", lambda: analyzer._failures > 1)
            assert not (await outcome(kafka)).records
            assert not await committed(settings)
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert (await measured(kafka)).positions == places(sent)


async def test_at_least_once_repeats_with_equal_ids(kafka: KafkaSettings) -> None:
    """Without transactions a failed batch is published again, under the ids that it had."""
    settings = settings_of(kafka, delivery=Delivery.AT_LEAST_ONCE)
    # In one partition, so that one poll has them all.
    sent = await submit(kafka, [*prompts(4), (b"bad", b"{"), (b"bad", b"[")], partition=0)
    async with AsyncExitStack() as worker:
        async with refusing(kafka, Topic.ENRICHED):
            await worker.enter_async_context(working(settings))

            async def repeated() -> bool:
                found = await outcome(kafka)
                return len(found.rejected) > len({one.id for one in found.rejected}) == 2

            await until("the dead letters are published again", repeated)

        async def complete() -> bool:
            return set((await outcome(kafka)).positions) == set(sent)

        await until("every prompt has a result", complete)
    found = await outcome(kafka)
    assert {one.id for one in (*found.enriched, *found.rejected)} == {
        one.event_id() for one in sent
    }
    assert (await measured(kafka)).positions == places(sent)


async def test_member_that_the_group_gave_up_commits_nothing(kafka: KafkaSettings) -> None:
    """A worker wakes up with a batch that is another's by now: its commit is fenced.

    Its own heartbeat has noticed by then, so that it has no member id any more: an offset commit
    without one would be let through by the broker.
    """
    encoder = HeldEncoder()
    slow = settings_of(kafka, "w-slow", semantic_timeout_seconds=50.0)
    await publish_state(kafka, rolling())
    async with working(slow, lambda: model_of(encoder)) as worker:
        try:
            await until("the model is loaded", lambda: worker._engine.model)
            sent = await submit(kafka, prompts(20))
            await until("the slow worker has a batch", encoder.asked.is_set)
            coordinator = worker._consumer._coordinator
            await throw_out(worker, slow)
            await until("it knows", lambda: coordinator.generation < 0)
            async with working(settings_of(kafka, "w-quick")):
                await wait_for_outcome(kafka, len(sent))
                encoder.let_go.set()
                await until("the slow worker is back", lambda: coordinator.generation > 0)
                await until("it has a partition", lambda: len(worker._consumer.assignment()) == 1)
                sent += await submit(kafka, prompts(20, "q"))
                found = await wait_for_outcome(kafka, len(sent))
        finally:
            encoder.let_go.set()
    assert found.positions == sorted(sent)
    assert (await measured(kafka)).positions == places(sent)


async def test_second_worker_of_the_same_id_fences_the_first(kafka: KafkaSettings) -> None:
    """The older process of an id ends with an error that names id and cure; the newer one works."""
    settings = settings_of(kafka, static_member=True)
    first = Worker(settings, hashing_model)
    task = asyncio.create_task(first.run())
    sent = await submit(kafka, prompts(5))
    await wait_for_outcome(kafka, 5)
    async with working(settings):
        for _ in range(100):
            if task.done():
                break
            sent += await submit(kafka, prompts(2, f"q{len(sent)}"))
            await asyncio.sleep(0.1)
        with pytest.raises(WorkerFencedError, match=r"'w-1'.*DRIFTGATE_WORKER_ID"):
            await asyncio.wait_for(task, 60)
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert (await measured(kafka)).positions == places(sent)


async def test_lag_is_that_of_the_own_partitions(kafka: KafkaSettings) -> None:
    """After a partition went to another worker and came back, its prompts there are no lag."""
    async with working(settings_of(kafka, "w-1")) as first:
        sent = await submit(kafka, prompts(10))
        await wait_for_outcome(kafka, len(sent))
        async with working(settings_of(kafka, "w-2")) as second:
            await until("both have one", lambda: len(second._consumer.assignment()) == 1)
            sent += await submit(kafka, prompts(40, "q"))
            await wait_for_outcome(kafka, len(sent))
        await until("all came back", lambda: len(first._consumer.assignment()) == 2)
        before = len(await heartbeats(kafka, "w-1"))

        async def newer() -> bool:
            return len(await heartbeats(kafka, "w-1")) > before + 1

        await until("it says how it is", newer)
        assert (await heartbeats(kafka, "w-1"))[-1].lag_messages == 0
