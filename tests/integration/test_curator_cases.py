"""Cases on a real broker: redacted, without near-duplicates, one an event (M42)."""

from __future__ import annotations

import time

from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import DriftCleared, DriftDetected
from schemas.feedback import CaseReason, CuratedCase, FeedbackKind
from schemas.prompts import FallbackReason, Path
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.curating import (
    SERVICE,
    about,
    cases,
    curating,
    curator_settings,
    drift,
    enriched,
    give,
    serve,
)
from tests.support.topics import put, read
from tests.support.workers import until

R = CaseReason
SECRETS = (
    "Write to jane.doe@example.org, call +49 170 1234567, charge 4111 1111 1111 1111 and log in "
    "with api_key = 4fJ9sK2mQx71LpZ8vB3n to find out why the quarterly invoice is wrong"
)


async def until_cases(kafka: KafkaSettings, count: int) -> dict[str, CuratedCase]:
    async def found() -> bool:
        return len(await cases(kafka)) >= count

    await until(f"{count} cases", found)
    return await cases(kafka)


async def say(kafka: KafkaSettings, event: DriftDetected | DriftCleared) -> None:
    """Put a control event where the monitor would."""
    headers = cloudevents.headers(
        event, id=event.id, source="/driftgate/monitor", subject=event.service, time_ms=event.at_ms
    )
    await put(kafka, Topic.CONTROL, event.service.encode(), cloudevents.encode_json(event), headers)


async def test_problem_cases_are_redacted_and_without_near_duplicates(kafka: KafkaSettings) -> None:
    """Each reason is found once; good results make no case, and neither do repeated texts."""
    fallback = {"path": Path.FALLBACK, "fallback_reason": FallbackReason.TIMEOUT, "semantic": None}
    bad = [
        enriched(1, SECRETS, relevance=0.2),
        enriched(2, overall=0.95),
        enriched(3, **fallback),
        enriched(
            4, "Draw me a sheep, please, a small one that lives for a long time", relevance=0.1
        ),
    ]
    near = [
        enriched(10, f"{SECRETS}!!", relevance=0.1),
        enriched(11, "draw me a sheep please: a small one that lives for a long time", relevance=0),
    ]
    good = [enriched(n) for n in range(20, 30)]
    async with curating(curator_settings(kafka)) as curator:
        await serve(kafka, [*bad, *good])
        found = await until_cases(kafka, 4)
        await serve(kafka, near)
        await until("both are passed over", lambda: curator.telemetry.passed_over["duplicate"] == 2)
    assert await cases(kafka) == found
    assert {case.id: case.reasons for case in found.values()} == {
        bad[0].id: [R.LOW_RELEVANCE],
        bad[1].id: [R.DISAGREEMENT],
        bad[2].id: [R.FALLBACK],
        bad[3].id: [R.LOW_RELEVANCE],
    }
    case = found[bad[0].id]
    assert case.redacted == ["card", "email", "key", "phone"]
    assert case.prompt == (
        "Write to [email], call [phone], charge [card] and log in "
        "with api_key = [key] to find out why the quarterly invoice is wrong"
    )
    assert (case.service, case.relevance, case.rules_score) == (SERVICE, 0.2, 0.5)
    assert found[bad[2].id].fallback_reason is FallbackReason.TIMEOUT
    assert curator.telemetry.cases == {"low_relevance": 2, "disagreement": 1, "fallback": 1}


async def test_negative_feedback_makes_a_case_or_adds_to_one(kafka: KafkaSettings) -> None:
    """The last record of an event has all of its reasons and the comment, redacted."""
    known, fresh, liked = enriched(1, relevance=0.2), enriched(2), enriched(3)
    async with curating(curator_settings(kafka)):
        await serve(kafka, [known, fresh, liked])
        await until_cases(kafka, 1)
        await give(
            kafka,
            [
                about(known, 0.0, comment="Ask bob@example.com why"),
                about(fresh, 0.25, attributed=False),
                about(liked, 0.26),
            ],
        )

        async def both() -> bool:
            return [len(c.reasons) for c in (await cases(kafka)).values()] == [2, 1]

        await until("the known case has both reasons", both)
    found = await cases(kafka)
    assert set(found) == {known.id, fresh.id}
    assert found[known.id].reasons == [R.LOW_RELEVANCE, R.NEGATIVE_FEEDBACK]
    said = found[known.id].feedback
    assert said is not None
    assert (said.kind, said.value) == (FeedbackKind.USER_RATING, 0.0)
    assert said.comment == "Ask [email] why"
    assert found[fresh.id].reasons == [R.NEGATIVE_FEEDBACK]


async def test_an_open_drift_alarm_asks_for_what_explains_it(kafka: KafkaSettings) -> None:
    """While it is open the farthest from the reference are cases; before and after, none is."""
    now_ms = time.time_ns() // 1_000_000
    quiet = [enriched(n, centroid_distance=0.8 + n / 100) for n in range(5)]
    strange = [enriched(n, centroid_distance=1.0 + n / 100) for n in range(10, 20)]
    after = [enriched(n, centroid_distance=1.9) for n in range(20, 25)]
    settings = curator_settings(kafka, cases=2)
    async with curating(settings) as curator:
        await serve(kafka, quiet)
        await until("they were seen", lambda: curator.telemetry.remembered == 5)
        await until_window_is_over()
        await say(kafka, drift(DriftDetected, now_ms + 2_000))
        await until_window_is_over(after_ms=now_ms + 2_000)
        await serve(kafka, strange)
        found = await until_cases(kafka, 2)
        cleared_ms = time.time_ns() // 1_000_000
        await say(kafka, drift(DriftCleared, cleared_ms))
        await until_window_is_over(after_ms=cleared_ms)
        await serve(kafka, after)
        await until("they were seen", lambda: curator.telemetry.remembered == 20)
        await until_window_is_over()
        await serve(kafka, [enriched(30, relevance=0.1)])
        await until_cases(kafka, len(found) + 1)
    made = [case for case in (await cases(kafka)).values() if R.DRIFT in case.reasons]
    assert {case.id for case in made} <= {event.id for event in strange}
    # Two of each partition at most in a window, the farthest first.
    assert strange[-1].id in {case.id for case in made}
    assert all((case.centroid_distance or 0) > 1 for case in made)


async def until_window_is_over(after_ms: int = 0) -> None:
    """Let the broker's clock, which is this machine's, get into another window of 0.5 s."""
    begin_ms = max(time.time_ns() // 1_000_000, after_ms)
    window = begin_ms // 500 + 1
    await until("the next window", lambda: time.time_ns() // 1_000_000 > (window + 1) * 500)


async def test_a_restart_makes_no_case_twice(kafka: KafkaSettings) -> None:
    """Cases are read back: a text that was kept before the restart is a near-duplicate after it."""
    text = "Compare the tax rules of Bavaria and Hesse for bakeries with more than three ovens"
    async with curating(curator_settings(kafka, "c-1")):
        await serve(kafka, [enriched(1, text, relevance=0.2)])
        await until_cases(kafka, 1)
    async with curating(curator_settings(kafka, "c-2")) as second:
        await serve(kafka, [enriched(2, text.upper(), relevance=0.1), enriched(3, relevance=0.1)])
        await until_cases(kafka, 2)
        await until("one is passed over", lambda: second.telemetry.passed_over["duplicate"] == 1)
    assert set(await cases(kafka)) == {"prompts/0/1", "prompts/0/3"}
    assert len(await read(kafka, Topic.CURATED)) == 2


async def test_a_deleted_case_stays_deleted(kafka: KafkaSettings) -> None:
    """A tombstone on the topic: feedback does not bring it back, nor does a restart."""
    event, other = enriched(1, relevance=0.2), enriched(2)
    async with curating(curator_settings(kafka)) as curator:
        await serve(kafka, [event, other])
        await until_cases(kafka, 1)
        await put(kafka, Topic.CURATED, event.id.encode(), None)
        await until_window_is_over()
        await give(kafka, [about(event, 0.0), about(other, 0.0)])
        passed_over = curator.telemetry.passed_over
        await until("it is passed over", lambda: passed_over["duplicate"] == 1)
    async with curating(curator_settings(kafka, "c-2")) as again:
        await until("it is ready", lambda: again.telemetry.ready)
        records = await read_all(kafka, Topic.CURATED, committed_only=False)
    assert [r.value is None for r in records if r.key == event.id.encode()] == [False, True]


async def test_two_curators_know_of_each_others_cases(kafka: KafkaSettings) -> None:
    """Feedback and its event may be with different curators: the case has the reasons of both."""
    events = [enriched(n, relevance=0.2) for n in range(8)]
    settings = [curator_settings(kafka, name, cases=50) for name in ("c-1", "c-2")]
    async with curating(settings[0]) as first, curating(settings[1]) as second:
        both = (first, second)
        await until("both are ready", lambda: all(each.telemetry.ready for each in both))
        await serve(kafka, events)
        await until_cases(kafka, len(events))
        await give(kafka, [about(event, 0.0) for event in events])

        async def all_know() -> bool:
            found = (await cases(kafka)).values()
            return all(case.reasons == [R.LOW_RELEVANCE, R.NEGATIVE_FEEDBACK] for case in found)

        await until("every case has both reasons", all_know)
        made = [each.telemetry.cases.total() for each in both]
    assert len(await cases(kafka)) == len(events)
    assert all(made), "each of them owns partitions and has made cases"


async def test_a_flood_of_problems_makes_few_cases(kafka: KafkaSettings) -> None:
    """Of each partition no more than so many a window, the worst of each kind."""
    events = [enriched(n, relevance=n / 1000, overall=0.95) for n in range(400)]
    async with curating(curator_settings(kafka, cases=4, window_seconds=3.0)) as curator:
        await serve(kafka, events)
        await until_cases(kafka, 2)
        await until(
            "both partitions are done", lambda: curator.telemetry.lag["prompts.enriched"] == 0
        )
    found = await cases(kafka)
    windows = 2
    assert 2 <= len(found) <= 2 * 4 * windows
    assert enriched(0).id in found, "the least relevant of all"
    assert curator.telemetry.passed_over["over_budget"] > 0
