"""One case an event, over restarts and curators."""

from __future__ import annotations

import msgspec

from analyzer.casebook import Casebook
from analyzer.served import served
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackKind
from tests.support.curating import enriched

R = CaseReason
SAID = CaseFeedback(kind=FeedbackKind.USER_RATING, value=0.0)


def taken(book: Casebook, number: int, reason: CaseReason, text: str = "") -> CuratedCase:
    case = book.take(served(enriched(number, text), 0), reason, 1)
    assert case is not None
    return case


def test_a_case_holds_what_the_event_says() -> None:
    """And no user, no more of the prompt than 4,000 characters, and nothing that was redacted."""
    text = f"{'x ' * 900}mail a@example.org now"
    case = taken(Casebook(10), 1, R.FALLBACK, text)
    event = enriched(1)
    assert case.prompt.endswith("mail [email] now")
    assert (case.redacted, case.prompt_truncated) == (["email"], False)
    assert case.relevance == 0.9
    assert case.rules_score == event.rules.overall
    assert case.segment == event.assignment.segment
    long = taken(Casebook(10), 1, R.FALLBACK, "y " * 3000)
    assert long.prompt_truncated
    assert len(long.prompt) <= 4000


def test_cases_that_are_read_back_are_known() -> None:
    """By event, and by text: of the same service."""
    text = "How do I teach a parrot to say good morning in three languages"
    case = taken(Casebook(10), 1, R.FALLBACK, text)
    book = Casebook(10)
    assert book.learn(case) is None
    assert book.take(served(enriched(1, text), 0), R.FALLBACK, 9) is case
    assert book.take(served(enriched(2, text), 0), R.FALLBACK, 9) is None
    other = enriched(3, text, service="blog")
    assert book.take(served(other, 0), R.FALLBACK, 9) is not None


def test_reasons_of_two_curators_are_joined() -> None:
    """Whoever reads a case that lacks a reason of its own makes it again with both."""
    book = Casebook(10)
    ours = taken(book, 1, R.LOW_RELEVANCE)
    theirs = msgspec.structs.replace(
        ours, reasons=[R.NEGATIVE_FEEDBACK], feedback=SAID, curated_ms=7
    )
    joined = book.learn(theirs)
    assert joined is not None
    assert joined.reasons == [R.LOW_RELEVANCE, R.NEGATIVE_FEEDBACK]
    assert (joined.feedback, joined.curated_ms) == (SAID, 7)
    # The other one does the same, and both are content then.
    assert book.learn(joined) is None
    other = Casebook(10)
    other.learn(theirs)
    assert other.learn(joined) is None


def test_a_case_that_was_deleted_does_not_come_back() -> None:
    """Neither with another reason nor by the same text."""
    book = Casebook(10)
    taken(book, 1, R.FALLBACK, "Where did I leave the keys to the shed behind the house")
    book.forget("prompts/0/1")
    book.forget("prompts/0/2")
    assert book.get("prompts/0/1") is None
    event = enriched(1, "Where did I leave the keys to the shed behind the house")
    assert book.take(served(event, 0), R.NEGATIVE_FEEDBACK, 1, SAID) is None


def test_the_book_is_bounded() -> None:
    """The oldest are forgotten, and may become cases again."""
    book = Casebook(5)
    for number in range(20):
        taken(book, number, R.FALLBACK, f"{'abcdefghijklmnopqrst'[number] * 9} text {number}")
    assert book.get("prompts/0/0") is None
    assert book.get("prompts/0/19") is not None
