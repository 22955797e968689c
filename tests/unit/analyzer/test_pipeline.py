"""What happens to a prompt between Kafka and Kafka, without Kafka."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.blend import blend
from analyzer.pipeline import (
    MAX_DEAD_LETTER_BYTES,
    MAX_KEY_BYTES,
    Accepted,
    Incoming,
    Refused,
    Semantic,
    admit,
    enriched,
    rejected,
)
from analyzer.validate import Limits
from schemas.prompts import (
    Arm,
    FallbackReason,
    Path,
    PromptEnriched,
    RejectionCode,
    SemanticScores,
    SourcePosition,
)
from schemas.rollout import Phase, RolloutState
from tests.support.samples import sample
from tests.support.workers import rolling

LIMITS = Limits()
NOW_MS = 1_767_225_600_000
GOOD = b'{"prompt": "Explain how a hash table resolves collisions"}'


def incoming(value: bytes | None = GOOD, key: bytes | None = b"k") -> Incoming:
    return Incoming(SourcePosition("prompts", 1, 7), NOW_MS, key, value)


def accepted(state: RolloutState, value: bytes = GOOD, key: bytes | None = b"k") -> Accepted:
    found = admit(incoming(value, key), state, LIMITS)
    assert isinstance(found, Accepted)
    return found


def result(one: Accepted, semantic: Semantic | None) -> PromptEnriched:
    return enriched(
        one,
        semantic,
        service="default",
        worker_id="w",
        rules_seconds=0.001,
        processing_seconds=0.01,
    )


def scored(overall: float = 0.9) -> Semantic:
    scores = msgspec.structs.replace(sample(SemanticScores), overall=overall)
    return Semantic(scores, None, 0.002, 0.003)


def test_control_is_served_by_blue() -> None:
    """Without a share, nothing about a prompt needs the model."""
    one = accepted(rolling(share=0.0))
    assert (one.served.name, one.measured.name) == ("baseline", "baseline")
    assert one.semantic_deployments == []
    served = result(one, None)
    assert (served.path, served.semantic, served.fallback_reason) == (Path.RULES, None, None)
    assert (served.score, served.semantic_weight) == (one.rules.overall, 0.0)


def test_candidate_is_served_by_green() -> None:
    """With a full share, the score is blended by the deployment's weight."""
    one = accepted(rolling(share=1.0))
    assert (one.served.name, one.measured.name) == ("semantic", "semantic")
    assert one.assignment.arm is Arm.CANDIDATE
    served = result(one, scored(0.9))
    assert served.path is Path.SEMANTIC
    assert served.semantic_weight == 0.3
    assert served.score == pytest.approx(blend(one.rules.overall, 0.9, 0.3))


def test_failure_of_the_semantic_half_falls_back() -> None:
    """The rules score is served in full, with the reason (M64)."""
    one = accepted(rolling(share=1.0))
    served = result(one, Semantic(None, FallbackReason.TIMEOUT, 5.0, 5.0))
    assert (served.path, served.fallback_reason) == (Path.FALLBACK, FallbackReason.TIMEOUT)
    assert (served.score, served.semantic_weight) == (one.rules.overall, 0.0)


@pytest.mark.parametrize("semantic", [scored(), Semantic(None, FallbackReason.BUSY, 0.0, 0.0)])
def test_shadow_shows_nothing_of_green(semantic: Semantic) -> None:
    """Neither green's scores nor its failures reach the result that is served (M45)."""
    one = accepted(rolling(share=0.0, shadow_share=1.0))
    assert (one.served.name, one.measured.name) == ("baseline", "semantic")
    assert [d.name for d in one.semantic_deployments] == [one.measured.name]
    served = result(one, semantic)
    assert (served.path, served.semantic, served.fallback_reason) == (Path.RULES, None, None)
    assert served.score == one.rules.overall
    assert served.assignment.shadow_deployment == "semantic"


def test_shadow_serves_a_semantic_blue_as_before() -> None:
    """With a semantic blue, a shadowed prompt is served blue's blend, and green is measured."""
    rules = rolling(share=0.0, shadow_share=1.0)
    assert rules.green is not None
    blue = msgspec.structs.replace(rules.green, name="semantic-1", semantic_weight=0.2)
    one = accepted(msgspec.structs.replace(rules, blue=blue))
    assert (one.served.name, one.measured.name) == ("semantic-1", "semantic")
    assert {d.name for d in one.semantic_deployments} == {"semantic-1", "semantic"}
    served = result(one, scored(0.9))
    assert (served.path, served.semantic_weight) == (Path.SEMANTIC, 0.2)


def test_our_own_failure_knows_its_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the analysis costs one prompt, and counts on the arm that it was assigned to."""

    def broken(_text: str) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("analyzer.pipeline.rule_scores", broken)
    found = admit(incoming(), rolling(share=1.0), LIMITS)
    assert isinstance(found, Refused)
    assert (found.code, found.arm) == (RejectionCode.INTERNAL_ERROR, Arm.CANDIDATE)
    assert "ZeroDivisionError" in found.reason


def test_promoted_green_is_blue() -> None:
    """After a promotion the new blue is semantic, and serves everybody."""
    state = rolling()
    assert state.green is not None
    promoted = rolling(2, phase=Phase.PROMOTED, blue=state.green, green=None, share=0.0)
    one = accepted(promoted)
    assert (one.served.name, one.assignment.arm) == ("semantic", Arm.CONTROL)
    assert result(one, scored()).path is Path.SEMANTIC


@pytest.mark.parametrize(
    ("value", "key", "sticks_to"),
    [
        (b'{"prompt": "Explain it", "user_id": "u", "id": "i"}', b"k", "u"),
        (b'{"prompt": "Explain it", "id": "i"}', b"k", "k"),
        (b'{"prompt": "Explain it", "id": "i"}', None, "i"),
        (b'{"prompt": "Explain it", "id": "i"}', b"", "i"),
        (b'{"prompt": "Explain it"}', None, "prompts/1/7"),
    ],
)
def test_assignment_sticks_to_the_best_key(value: bytes, key: bytes | None, sticks_to: str) -> None:
    """The user, else the record's key, else the prompt's id, else its position."""
    state = rolling(share=0.5)
    same = accepted(state, msgspec.json.encode({"prompt": "Other", "user_id": sticks_to}))
    assert accepted(state, value, key).assignment.bucket == same.assignment.bucket


def test_event_time_feeds_the_queueing_time() -> None:
    """A trusted event time gives the seconds to the broker; one ahead of it gives none below 0."""
    before = b'{"prompt": "Explain it", "submitted_at": "2025-12-31T23:59:58.500Z"}'
    assert accepted(rolling(), before).queue_seconds == 1.5
    ahead = b'{"prompt": "Explain it", "submitted_at": "2026-01-01T00:01:00Z"}'
    assert accepted(rolling(), ahead).queue_seconds == 0.0
    never = b'{"prompt": "Explain it", "submitted_at": "9999-12-31T23:59:59-23:59"}'
    assert accepted(rolling(), never).queue_seconds is None


@given(st.binary(max_size=300) | st.none(), st.binary(max_size=20) | st.none())
def test_any_record_is_accepted_or_refused(value: bytes | None, key: bytes | None) -> None:
    """No bytes raise, and none are our own fault."""
    found = admit(incoming(value, key), rolling(share=0.5), LIMITS)
    assert isinstance(found, Accepted) or found.code is not RejectionCode.INTERNAL_ERROR


def test_defect_of_ours_costs_one_prompt() -> None:
    """What raises inside of the analysis is a rejection that says so, and not the worker's end."""
    broken = msgspec.structs.replace(LIMITS, max_chars="many")  # type: ignore[arg-type]
    found = admit(incoming(), rolling(), broken)
    assert isinstance(found, Refused)
    assert found.code is RejectionCode.INTERNAL_ERROR
    assert found.reason.startswith("TypeError: ")


def test_key_that_is_none_is_refused() -> None:
    """A key beyond the limit is refused with both numbers, and its result has none."""
    large = incoming(key=b"k" * (MAX_KEY_BYTES + 1))
    found = admit(large, rolling(), LIMITS)
    assert isinstance(found, Refused)
    assert found.code is RejectionCode.RECORD_TOO_LARGE
    assert found.reason == f"key of {MAX_KEY_BYTES + 1} bytes > limit of {MAX_KEY_BYTES}"
    assert large.result_key is None
    largest = incoming(key=b"k" * MAX_KEY_BYTES)
    assert largest.result_key == largest.key
    assert isinstance(admit(largest, rolling(), LIMITS), Accepted)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_dead_letter_is_cut_at_its_limit(extra: int) -> None:
    """The payload is kept up to the limit, and its full length is said."""
    value = b"x" * (MAX_DEAD_LETTER_BYTES + extra)
    letter = rejected(
        Refused(incoming(value), RejectionCode.NOT_JSON, "why"), service="s", worker_id="w"
    )
    assert letter.payload == value[:MAX_DEAD_LETTER_BYTES]
    assert letter.payload_bytes == len(value)
    assert letter.payload_truncated == (extra > 0)
    assert letter.id == letter.source.event_id() == "prompts/1/7"


def test_dead_letter_of_a_tombstone_is_empty() -> None:
    """A record without a value has a payload of no bytes."""
    letter = rejected(
        Refused(incoming(None), RejectionCode.EMPTY, "why"), service="s", worker_id="w"
    )
    assert (letter.payload, letter.payload_bytes, letter.payload_truncated) == (b"", 0, False)
