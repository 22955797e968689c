"""From events to traces: the spans, their real times, and which are kept (M78, M80, M81)."""

from __future__ import annotations

import msgspec
import pytest

from schemas.feedback import CaseReason, FeedbackKind
from schemas.prompts import Path, RejectionCode, SourcePosition
from streams.tracking.drafts import Kept, RunRef, SpanDraft, TraceDraft
from streams.tracking.feedback import feedback_draft
from streams.tracking.traces import MAX_PROMPT_CHARS, Tracing, curated_tags
from tests.support.tracked import MADE_MS, ROLLOUT, case, enriched, feedback, rejected

TRACING = Tracing("cluster", 0.25)


def trace_of(path: Path) -> TraceDraft:
    return TRACING.enriched(
        enriched(path=path), Kept.SAMPLED, made_ms=MADE_MS, published_ms=MADE_MS + 30
    )


def times(draft: TraceDraft) -> dict[str, tuple[int, int]]:
    """Start and end of each span in ms, counted from when the results were made."""
    return {
        span.name: ((span.start_ns - MADE_MS * 1_000_000) // 1_000_000,
                    (span.end_ns - MADE_MS * 1_000_000) // 1_000_000)
        for span in draft.spans
    }  # fmt: skip


def test_spans_have_the_times_of_what_they_show() -> None:
    """Polled 150 ms before, rules 10 ms, 20 ms of waiting, 100 ms in the model, 20 ms of scoring.

    Then 30 ms until the broker had it.
    """
    assert times(trace_of(Path.SEMANTIC)) == {
        "prompt": (-150, 30),
        "validate": (-150, -140),
        "embed": (-120, -20),
        "analyse": (-20, 0),
        "publish": (0, 30),
    }


def test_rules_alone_are_analysed_while_they_are_validated() -> None:
    """Nothing is embedded; both have the time of the phase in which they are done together."""
    assert times(trace_of(Path.RULES)) == {
        "prompt": (-150, 30),
        "validate": (-150, -140),
        "analyse": (-150, -140),
        "publish": (0, 30),
    }


def test_a_fallback_shows_what_failed_and_how_long_it_took() -> None:
    """The span of the model has the error; the prompt was served all the same."""
    draft = trace_of(Path.FALLBACK)
    spans = {span.name: span for span in draft.spans}
    assert spans["embed"].error == "timeout: the rules result is served"
    assert times(draft)["embed"] == (-120, -20)
    assert [span.name for span in draft.spans if span.error] == ["embed"]
    assert draft.name == "candidate semantic (fallback: timeout)"


def test_an_event_without_the_new_times_still_has_a_trace() -> None:
    """An older version did not say how long its batch took: its processing time stands for it."""
    event = enriched()
    old = msgspec.structs.replace(event.timings, batch_seconds=0.0, wait_seconds=0.0)
    draft = TRACING.enriched(
        msgspec.structs.replace(event, timings=old),
        Kept.SAMPLED, made_ms=MADE_MS, published_ms=MADE_MS,
    )  # fmt: skip
    assert times(draft)["prompt"] == (-150, 0)


@pytest.mark.parametrize("path", list(Path))
def test_no_span_ends_before_it_begins(path: Path) -> None:
    """Not even where the broker's clock is behind the analyzer's."""
    draft = TRACING.enriched(
        enriched(path=path), Kept.SAMPLED, made_ms=MADE_MS, published_ms=MADE_MS - 5000
    )
    root, *parts = draft.spans
    assert all(span.start_ns <= span.end_ns for span in draft.spans)
    assert all(root.start_ns <= s.start_ns and s.end_ns <= root.end_ns for s in parts)


def test_a_trace_says_what_it_is_of() -> None:
    """Prompt, scores, assignment, times, why it was kept and with what chance."""
    draft = trace_of(Path.SEMANTIC)
    root = draft.spans[0]
    assert draft.run == RunRef("shop", ROLLOUT)
    assert draft.name == "candidate semantic"
    assert draft.tags == {"driftgate.event_id": "prompts/0/0", "driftgate.kept": "sampled"}
    assert root.inputs == {"prompt": "Explain the moon"}
    assert root.outputs["score"] == 0.5
    assert root.outputs["semantic"]["cache_hit"] is True
    assert root.attributes["driftgate.sample_ratio"] == 0.25
    assert root.attributes["driftgate.assignment"]["arm"] == "candidate"
    assert root.attributes["driftgate.timings"]["queue_seconds"] == 0.5


def test_a_long_prompt_is_cut() -> None:
    """A trace shows enough of a prompt to know it by."""
    long = enriched(prompt="x" * 20_000)
    draft = TRACING.enriched(long, Kept.SAMPLED, made_ms=MADE_MS, published_ms=MADE_MS)
    assert draft.spans[0].inputs == {"prompt": "x" * MAX_PROMPT_CHARS}


def test_errors_and_fallbacks_are_always_kept() -> None:
    """Even where nothing is sampled."""
    nothing = Tracing("cluster", 0.0)
    assert nothing.reason_to_keep(enriched()) is None
    assert nothing.reason_to_keep(enriched(path=Path.RULES)) is None
    assert nothing.reason_to_keep(enriched(path=Path.FALLBACK)) is Kept.FALLBACK
    for code in RejectionCode:
        assert nothing.reason_to_keep(rejected(code=code)) is Kept.ERROR


def test_where_everything_is_sampled_the_reason_is_still_said() -> None:
    """A fallback is kept because it is one, so that the sampled ones are a fair sample."""
    everything = Tracing("cluster", 1.0)
    assert everything.reason_to_keep(enriched()) is Kept.SAMPLED
    assert everything.reason_to_keep(enriched(path=Path.FALLBACK)) is Kept.FALLBACK


def test_a_rejection_is_an_error_with_its_payload() -> None:
    """The code is in the name, the reason in the error; bytes that are no text are shown anyhow."""
    draft = TRACING.rejected(rejected(), made_ms=MADE_MS, published_ms=MADE_MS + 3)
    root = draft.spans[0]
    assert draft.name == "rejected: empty"
    assert root.error == "empty: nothing to be seen"
    assert root.inputs == {"payload": '{"prompt": "\N{REPLACEMENT CHARACTER}"}'}
    assert times(draft) == {"prompt": (0, 3), "validate": (0, 0), "publish": (0, 3)}
    assert draft.run is None


def test_a_case_whose_event_is_gone_is_a_trace_of_its_own() -> None:
    """It has the numbers of the case, and says that its times are not known."""
    draft = TRACING.curated(case(7, CaseReason.DRIFT, CaseReason.LOW_RELEVANCE))
    (root,) = draft.spans
    assert draft.trace_id == TRACING.id_of("prompts/0/7")
    assert draft.kept is Kept.CURATED
    assert root.inputs == {"prompt": "Explain [email]"}
    assert root.outputs["rules_score"] == 0.5
    assert str(root.attributes["driftgate.times"]).startswith("unknown")
    tags = curated_tags(case(7, CaseReason.DRIFT, CaseReason.LOW_RELEVANCE))
    assert tags == {"driftgate.curated": "drift,low_relevance"}


@pytest.mark.parametrize(
    ("kind", "human"),
    [
        (FeedbackKind.USER_RATING, True),
        (FeedbackKind.EXPERT_LABEL, True),
        (FeedbackKind.JUDGE_SCORE, False),
    ],
)
def test_feedback_is_an_assessment_of_its_trace(kind: FeedbackKind, human: bool) -> None:
    """A person's or a model's; read again, it is the same one."""
    source = SourcePosition("prompts.feedback", 1, 5)
    drafts = [
        feedback_draft(feedback(3, 0.0, kind), source, cluster_id="cluster", at_ms=MADE_MS)
        for _ in range(2)
    ]
    assert drafts[0] == drafts[1]
    assert drafts[0].trace_id == TRACING.id_of("prompts/0/3")
    assert (drafts[0].name, drafts[0].value, drafts[0].human) == (kind.value, 0.0, human)
    assert (drafts[0].source, drafts[0].comment) == ("ann", "helpful")


def test_a_span_of_a_trace_may_not_change() -> None:
    """Drafts are values."""
    span = trace_of(Path.RULES).spans[0]
    assert isinstance(span, SpanDraft)
    with pytest.raises(AttributeError):
        span.name = "other"  # type: ignore[misc]
