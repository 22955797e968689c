"""Which events are worth a look: the worst of each kind in a window of a partition (M42)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from analyzer.casebook import Casebook
from analyzer.curation import Curation, CurationLimits
from analyzer.drift_alarms import DriftAlarms
from analyzer.served import served
from schemas.control import DriftDetected
from schemas.feedback import CaseReason, CuratedCase, FeedbackGiven, FeedbackKind
from schemas.prompts import FallbackReason, Path, PromptEnriched
from tests.support.curating import about, drift, enriched

R = CaseReason
MINUTE_MS = 60_000


class Desk:
    """A partition that is curated, and its time."""

    def __init__(self, cases: int = 5, book: Casebook | None = None) -> None:
        self.book = book or Casebook(100)
        self.alarms = DriftAlarms()
        self.passed_over: Counter[str] = Counter()
        limits = CurationLimits(cases=cases)
        self.curation = Curation(limits, self.book, self.alarms, self.passed_over)
        self.offset = 0

    def see(self, event: PromptEnriched, at_ms: int = 0) -> list[CuratedCase]:
        self.offset += 1
        return self.curation.see(served(event, at_ms), self.offset - 1)

    def hear(self, event: PromptEnriched, value: float, at_ms: int = 0, **fields: Any
             ) -> CuratedCase | None:  # fmt: skip
        said = about(event, value, attributed=False, **fields)
        given = FeedbackGiven(**{**said, "kind": FeedbackKind(said["kind"])})
        return self.curation.hear(served(event, 0), given, at_ms)


@pytest.mark.parametrize(
    ("event", "reasons"),
    [
        (enriched(1), []),
        (enriched(1, relevance=0.6, overall=0.79), []),
        (enriched(1, relevance=0.59), [R.LOW_RELEVANCE]),
        (enriched(1, overall=0.81), [R.DISAGREEMENT]),
        (enriched(1, overall=0.19), [R.DISAGREEMENT]),
        (enriched(1, overall=0.19, relevance=0.1), [R.DISAGREEMENT, R.LOW_RELEVANCE]),
        (
            enriched(1, path=Path.FALLBACK, fallback_reason=FallbackReason.BUSY, semantic=None),
            [R.FALLBACK],
        ),
        (enriched(1, path=Path.RULES, semantic=None), []),
    ],
)
def test_each_reason_is_found(event: PromptEnriched, reasons: list[CaseReason]) -> None:
    """An event is one case with all of its reasons, or none."""
    desk = Desk()
    desk.see(event)
    assert [case.reasons for case in desk.curation.close()] == ([reasons] if reasons else [])


def test_cases_come_when_their_window_is_over() -> None:
    """By the time stamps of the partition; the case says when that was."""
    desk = Desk()
    assert desk.see(enriched(1, relevance=0.1), MINUTE_MS) == []
    assert desk.see(enriched(2), 2 * MINUTE_MS - 1) == []
    (case,) = desk.see(enriched(3, relevance=0.1), 2 * MINUTE_MS)
    assert (case.id, case.curated_ms) == ("prompts/0/1", 2 * MINUTE_MS)
    # A broker's clock that went back: still the window that is open.
    assert desk.see(enriched(4, relevance=0.2), 0) == []
    assert {case.id for case in desk.curation.close()} == {"prompts/0/3", "prompts/0/4"}


def test_a_partition_is_read_again_from_its_open_window() -> None:
    """What was seen in it is not decided on yet."""
    desk = Desk()
    assert desk.curation.begin is None
    desk.see(enriched(1), 10)
    desk.see(enriched(2, relevance=0.1), 20)
    assert desk.curation.begin == 0
    desk.see(enriched(3), MINUTE_MS)
    assert desk.curation.begin == 2
    desk.curation.close()
    assert desk.curation.begin is None


def test_the_worst_of_each_kind_have_their_turn() -> None:
    """With little room: one of each kind before the second of any, and kinds take turns."""
    events = [enriched(n, relevance=0.1 + n / 100) for n in range(10)]
    events += [enriched(n, overall=0.99 - n / 1000) for n in range(10, 20)]
    for minute, first in enumerate((R.DISAGREEMENT, R.LOW_RELEVANCE, R.DISAGREEMENT)):
        desk = Desk(cases=1)
        for event in events:
            desk.see(event, minute * MINUTE_MS)
        (case,) = desk.curation.close()
        assert case.reasons == [first], "without an alarm, drift has no turn"
    desk = Desk(cases=4)
    for event in events:
        desk.see(event)
    found = {case.id for case in desk.curation.close()}
    assert found == {f"prompts/0/{n}" for n in (0, 1, 10, 11)}
    assert desk.passed_over["over_budget"] == 2 * 6 + 4


def test_room_is_for_events_and_comes_anew() -> None:
    """Two reasons of an event take one place; the next window has room again."""
    desk = Desk(cases=2)
    for minute in range(3):
        for n in range(3):
            number = 10 * minute + n
            desk.see(enriched(number, relevance=0.1 + n / 10, overall=0.99 - n / 100),
                     minute * MINUTE_MS)  # fmt: skip
    found = desk.curation.close()
    assert [case.reasons for case in found] == [[R.DISAGREEMENT, R.LOW_RELEVANCE]] * 2
    assert len(desk.book._cases) == 6


def test_near_duplicates_make_no_case() -> None:
    """Of one service; they take no room from others."""
    desk = Desk(cases=2)
    text = "Tell me how to bake a bread with a crust that stays crisp for a day"
    desk.see(enriched(1, text, relevance=0.1))
    desk.see(enriched(2, text.upper() + "!", relevance=0.2))
    desk.see(enriched(3, text, relevance=0.2, service="blog"), MINUTE_MS)
    desk.see(enriched(4, text, relevance=0.1), MINUTE_MS)
    found = [*desk.book._cases, *(case.id for case in desk.curation.close())]
    assert found == ["prompts/0/1", "prompts/0/3"]
    assert desk.passed_over["duplicate"] == 2


def test_the_farthest_are_cases_while_drift_is_open() -> None:
    """Also those before the alarm in its window: it comes after its causes."""
    for alarm, expected in ((None, []), (drift(DriftDetected, 59_000), [3, 2])):
        desk = Desk(cases=2)
        for n in range(4):
            desk.see(enriched(n, centroid_distance=1 + n / 10), 10 * n)
        if alarm is not None:
            desk.alarms.take(alarm)
        found = desk.curation.close()
        assert [case.id for case in found] == [f"prompts/0/{n}" for n in expected]
        assert all(case.reasons == [R.DRIFT] for case in found)


def test_negative_feedback_makes_a_case_at_once() -> None:
    """Up to 0.25; with its comment, redacted; a few a window."""
    desk = Desk(cases=2)
    assert desk.hear(enriched(1), 0.26) is None
    case = desk.hear(enriched(1), 0.25, comment="ask a@example.com", at_ms=7)
    assert case is not None
    assert (case.reasons, case.curated_ms) == ([R.NEGATIVE_FEEDBACK], 7)
    assert case.feedback is not None
    assert case.feedback.comment == "ask [email]"
    assert desk.hear(enriched(2), 0.0) is not None
    assert desk.hear(enriched(3), 0.0) is None
    assert desk.passed_over["over_budget"] == 1
    assert desk.hear(enriched(3), 0.0, at_ms=MINUTE_MS) is not None


def test_feedback_adds_its_reason_to_a_case() -> None:
    """The same feedback again says nothing new; another does."""
    book = Casebook(100)
    event = enriched(1, relevance=0.1)
    results, feedback = Desk(book=book), Desk(book=book)
    results.see(event)
    results.curation.close()
    case = feedback.hear(event, 0.0, at_ms=5)
    assert case is not None
    assert case.reasons == [R.LOW_RELEVANCE, R.NEGATIVE_FEEDBACK]
    assert feedback.hear(event, 0.0, at_ms=6) is None
    again = feedback.hear(event, 0.0, comment="still bad", at_ms=7)
    assert again is not None
    assert again.feedback is not None
    assert again.feedback.comment == "still bad"


def test_a_window_that_is_seen_again_makes_the_same_cases() -> None:
    """After a restart, with the cases of before read back: none besides takes their room."""
    events = [enriched(n, relevance=n / 100) for n in range(10)]
    first = Desk(cases=3)
    for event in events:
        first.see(event)
    made = first.curation.close()
    second = Desk(cases=3)
    for case in made:
        assert second.book.learn(case) is None
    for event in events:
        second.see(event)
    assert second.curation.close() == []
    assert {case.id for case in made} == {"prompts/0/0", "prompts/0/1", "prompts/0/2"}
