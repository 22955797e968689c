"""Feedback on a real broker: joined to what was served, counted once, or refused with a code."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas import cloudevents
from schemas.feedback import FeedbackRejectionCode
from schemas.feedback_batch import FeedbackFlag
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.curating import (
    SERVICE,
    Heard,
    about,
    curating,
    curator_settings,
    enriched,
    give,
    letters,
    serve,
    until_heard,
)
from tests.support.monitoring import admin
from tests.support.workers import until

CODES = FeedbackRejectionCode
USER, EXPERT, JUDGE = (
    FeedbackFlag.USER_RATING,
    FeedbackFlag.EXPERT_LABEL,
    FeedbackFlag.JUDGE_SCORE,
)
GREEN = FeedbackFlag.CANDIDATE


async def test_feedback_counts_with_and_without_attribution(kafka: KafkaSettings) -> None:
    """Both kinds of joining give the same arm, segment and revision, in every partition."""
    events = [enriched(n, candidate=n % 2 == 1) for n in range(20)]
    await serve(kafka, events)
    said = [
        about(event, 0.5 if kind == "user_rating" else 1.0, attributed=attributed, kind=kind)
        for event in events
        for kind in ("user_rating", "expert_label", "judge_score")
        for attributed in (True, False)
    ]
    places = await give(kafka, said)
    async with curating(curator_settings(kafka)) as curator:
        found = await until_heard(kafka, places)
        await until("they are counted", lambda: curator.telemetry.joined.total() == len(said))
    flags = {"user_rating": USER, "expert_label": EXPERT, "judge_score": JUDGE}
    expected = []
    for one, place in zip(said, places, strict=True):
        candidate = int(one["event_id"].rsplit("/", 1)[1]) % 2 == 1
        expected.append(
            Heard(
                place.partition,
                place.offset,
                SERVICE,
                flags[one["kind"]] | (GREEN if candidate else FeedbackFlag(0)),
                "pro" if candidate else "rest",
                2,
                one["value"],
            )
        )
    assert found == sorted(expected)
    assert len({place.partition for place in places}) == 2
    assert curator.telemetry.joined == {"attribution": 60, "table": 60}
    assert curator.telemetry.feedback["user_rating", "neutral"] == 40
    assert curator.telemetry.feedback["judge_score", "positive"] == 40


async def test_what_cannot_be_counted_is_refused_with_its_code(kafka: KafkaSettings) -> None:
    """Poison, values out of range and unknown events: a dead letter each, and nothing is lost.

    What stands between them counts.
    """
    event = enriched(1)
    await serve(kafka, [event])
    unknown = enriched(2)
    stranger = enriched(3, service="nobody")
    bad = {
        CODES.EMPTY: None,
        CODES.NOT_JSON: b"\xff\x00 no json",
        CODES.WRONG_SHAPE: b'{"event_id": "x", "kind": "shouting", "value": 1}',
        CODES.OUT_OF_RANGE: msgspec.json.encode(about(event, 1.01)),
        CODES.RECORD_TOO_LARGE: b'"' + b"x" * 70_000 + b'"',
        CODES.UNKNOWN_EVENT: msgspec.json.encode(about(unknown, 0.5, attributed=False)),
    }
    more = [
        (CODES.OUT_OF_RANGE, msgspec.json.encode(about(event, -0.01))),
        (CODES.OUT_OF_RANGE, msgspec.json.encode(about(event, 0.5, kind="expert_label"))),
        (CODES.UNKNOWN_EVENT, msgspec.json.encode(about(stranger, 0.5))),
        (CODES.NOT_JSON, b'{"event_id": "x", "kind": "user_rating", "value": NaN}'),
    ]
    everything: list[dict[str, object] | bytes | None] = []
    for value in [*bad.values(), *(value for _, value in more)]:
        everything += [value, about(event, 0.5)]
    places = await give(kafka, everything, partition=1)
    async with curating(curator_settings(kafka)) as curator:
        await until_heard(kafka, places[1::2])
        refused = len(bad) + len(more)
        await until("all letters", lambda: curator.telemetry.rejected.total() == refused)
    found = await letters(kafka)
    assert [one.source for one in found] == places[::2]
    assert [one.code for one in found] == [*bad, *(code for code, _ in more)]
    payloads = [value or b"" for value in everything[::2] if not isinstance(value, dict)]
    assert [one.payload for one in found] == [value[: 2**14] for value in payloads]
    assert [one.payload_bytes for one in found] == [len(value) for value in payloads]
    by_code = {one.code: one for one in found}
    assert "`float` <= 1.0 - at `$.value`" in found[3].reason
    assert by_code[CODES.RECORD_TOO_LARGE].payload_truncated
    assert found[5].event_id == unknown.id
    assert "not among those that are remembered" in found[5].reason
    assert "'nobody'" in found[8].reason


async def test_feedback_waits_for_an_event_that_comes_later(kafka: KafkaSettings) -> None:
    """What overtakes its event is held back, with what stands behind it, and counts in order."""
    early, other = enriched(1), enriched(2)
    await serve(kafka, [other])
    async with curating(curator_settings(kafka, late_seconds=20.0)) as curator:
        await until("it is ready", lambda: curator.telemetry.ready)
        places = await give(
            kafka, [about(early, 0.5, attributed=False), about(other, 1.0)], partition=0
        )
        elsewhere = await give(kafka, [about(other, 1.0)], partition=1)
        await until_heard(kafka, elsewhere)
        assert curator.telemetry.waiting == 2
        await serve(kafka, [early])
        await until_heard(kafka, [*places, *elsewhere])
    assert not await letters(kafka)


async def test_an_open_transaction_hides_its_results(kafka: KafkaSettings) -> None:
    """A result that was aborted is no event, and one that is not committed yet is none yet."""
    aborted, later = enriched(1), enriched(2)
    topic = kafka.topic(Topic.ENRICHED)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{kafka.topic_prefix}other"
    )
    async with producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, cloudevents.encode_json(aborted), key=b"1")
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, cloudevents.encode_json(later), key=b"1")
        said = [about(each, 0.5, attributed=False) for each in (aborted, later)]
        places = await give(kafka, said, partition=0)
        async with curating(curator_settings(kafka, late_seconds=8.0)) as curator:
            await until("both wait", lambda: curator.telemetry.waiting == 2)
            await producer.commit_transaction()
            await until_heard(kafka, places[1:])
    assert [one.source for one in await letters(kafka)] == places[:1]


async def test_a_quiet_service_is_known_by_its_analyzers(kafka: KafkaSettings) -> None:
    """Feedback with an attribution counts though no event of its service is remembered."""
    quiet = enriched(1, service="quiet")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"{kafka.topic_prefix}driftgate-analyzer-quiet",
    )
    async with consumer:
        consumer.assign([TopicPartition(kafka.topic(Topic.PROMPTS), 0)])
        await consumer.commit({TopicPartition(kafka.topic(Topic.PROMPTS), 0): 0})
    places = await give(kafka, [about(quiet, 1.0)])
    async with curating(curator_settings(kafka)):
        (found,) = await until_heard(kafka, places)
    assert found.service == "quiet"


async def test_several_services_are_told_apart(kafka: KafkaSettings) -> None:
    """A curator serves all services of a prefix: a batch each, under the service's key."""
    events = [enriched(n, service=f"service-{n % 3}") for n in range(30)]
    await serve(kafka, events)
    places = await give(kafka, [about(e, 1.0, attributed=n % 2 == 0) for n, e in enumerate(events)])
    async with curating(curator_settings(kafka)):
        found = await until_heard(kafka, places)
    services = {(one.partition, one.offset): one.service for one in found}
    assert [services[place.partition, place.offset] for place in places] == [
        event.service for event in events
    ]


async def test_a_spare_is_ready_and_takes_over(kafka: KafkaSettings) -> None:
    """With more curators than partitions one has nothing to do until another one leaves."""
    event = enriched(1)
    await serve(kafka, [event])
    async with AsyncExitStack() as stack:
        curators = [
            await stack.enter_async_context(curating(curator_settings(kafka, f"c-{n}")))
            for n in range(5)
        ]
        await until("all are ready", lambda: all(each.telemetry.ready for each in curators))
        for each in curators[:4]:
            each.stop()
        places = await give(kafka, [about(event, 0.5)] * 20)
        await until_heard(kafka, places)


async def test_a_curator_that_was_away_joins_as_if_it_had_been_there(kafka: KafkaSettings) -> None:
    """Backlogs of both topics are read in step: a small table suffices, whatever was missed.

    400 results and the feedback on each, a second apart, with a table of 40: had the results been
    read to the end first, nine of ten pieces would have been on unknown events.
    """
    await with_own_times(kafka)
    begin_ms = 1_700_000_000_000
    events = [enriched(n, candidate=n % 2 == 1) for n in range(400)]
    times = [begin_ms + 1000 * n for n in range(400)]
    await serve(kafka, events, times_ms=times)
    said = [about(event, 1.0, attributed=False) for event in events]
    places = await give(kafka, said, times_ms=[at + 5_000 for at in times])
    async with curating(curator_settings(kafka, events=40)):
        await until_heard(kafka, places)
    assert not await letters(kafka)


async def test_age_is_held_against_the_feedback_and_not_against_now(kafka: KafkaSettings) -> None:
    """An event more than a day older than its feedback is unknown, however late they are read."""
    await with_own_times(kafka)
    begin_ms = 1_700_000_000_000
    event = enriched(1)
    await serve(kafka, [event], times_ms=[begin_ms])
    said = [about(event, 1.0, attributed=False)] * 2
    places = await give(
        kafka, said, partition=0, times_ms=[begin_ms + 86_400_000, begin_ms + 86_400_001]
    )
    async with curating(curator_settings(kafka)) as curator:
        await until_heard(kafka, places[:1])
        await until("a letter", curator.telemetry.rejected.total)
    assert [one.source for one in await letters(kafka)] == places[1:]


async def with_own_times(kafka: KafkaSettings) -> None:
    """Let the test say when records were appended, as if it had happened long ago."""
    async with admin(kafka) as client:
        for topic in (Topic.ENRICHED, Topic.FEEDBACK):
            config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
            resource = ConfigResource(ConfigResourceType.TOPIC, kafka.topic(topic), config)
            await client.alter_configs([resource])
