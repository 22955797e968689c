"""The partitions of a curator are curated each for itself."""

from __future__ import annotations

from collections import Counter

from analyzer.casebook import Casebook
from analyzer.curation import CurationLimits
from analyzer.drift_alarms import DriftAlarms
from analyzer.feedback import Attributed
from analyzer.feedback_queue import Accepted
from analyzer.lanes import Lanes
from analyzer.served import attribution_of, served
from schemas.feedback import FeedbackGiven, FeedbackKind
from schemas.prompts import SourcePosition
from tests.support.curating import enriched

MINUTE_MS = 60_000


def lanes(passed_over: Counter[str] | None = None) -> Lanes[str]:
    counter = Counter[str]() if passed_over is None else passed_over
    return Lanes(CurationLimits(cases=1), Casebook(100), DriftAlarms(), counter)


def accepted(number: int, value: float, *, remembered: bool = True) -> Accepted:
    event = enriched(number)
    given = FeedbackGiven(event_id=event.id, kind=FeedbackKind.USER_RATING, value=value)
    source = SourcePosition("prompts.feedback", 0, number)
    one = served(event, 0) if remembered else None
    return Accepted(Attributed(source, given, attribution_of(event)), 0, False, one)


def test_each_partition_has_its_window_and_its_room() -> None:
    """One whose window is over says so, whatever the time is in another."""
    found = lanes()
    for n, key in enumerate("aabb"):
        assert found.see(key, served(enriched(n, relevance=0.1 + n / 100), 0), n, 0.0) == []
    later = served(enriched(9), MINUTE_MS)
    assert [case.id for case in found.see("b", later, 9, 1.0)] == ["prompts/0/2"]
    assert found.next_offsets([("a", 2), ("b", 10), ("c", 7)]) == {"a": 0, "b": 9}


def test_what_was_read_of_an_idle_partition_is_done_with() -> None:
    """After a window without a result; the offsets go on to what comes next."""
    found = lanes()
    found.see("a", served(enriched(1, relevance=0.1), 0), 5, 100.0)
    assert found.close_idle(159.9) == []
    assert [case.id for case in found.close_idle(160.0)] == ["prompts/0/1"]
    assert found.close_idle(1000.0) == []
    assert found.next_offsets([("a", 8)]) == {"a": 8}


def test_partitions_that_go_are_forgotten() -> None:
    """Nothing is said of their offsets, and their open windows make no cases here."""
    found = lanes()
    found.see("a", served(enriched(1, relevance=0.1), 0), 5, 0.0)
    found.clear()
    assert found.close_idle(1000.0) == []
    assert found.next_offsets([("a", 8)]) == {}


def test_negative_feedback_needs_its_event() -> None:
    """Without the text there is nothing to look at, which is counted."""
    passed_over = Counter[str]()
    found = lanes(passed_over)
    assert found.hear("f", accepted(1, 0.26)) == []
    assert found.hear("f", accepted(1, 0.0, remembered=False)) == []
    assert [case.id for case in found.hear("f", accepted(1, 0.0))] == ["prompts/0/1"]
    assert found.hear("f", accepted(2, 0.0)) == []
    assert [case.id for case in found.hear("g", accepted(2, 0.0))] == ["prompts/0/2"]
    assert passed_over == {"not_remembered": 1, "over_budget": 1}
    assert found.next_offsets([("f", 3)]) == {}
