"""A row a prompt, in columns that the monitor can read."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from analyzer.blend import blend
from analyzer.fourier import FourierRow
from analyzer.measure import Row, measurement_batch, rejected_row, result_row
from analyzer.pipeline import Accepted, Incoming, Refused, Semantic, admit
from analyzer.validate import Limits
from schemas.drift import stacked_sums
from schemas.log import MeasurementBatch, RowFlag, decode_log_record, encode_log_record
from schemas.prompts import Arm, FallbackReason, RejectionCode, SemanticScores, SourcePosition
from schemas.rollout import NO_BUCKET, RolloutState, Segment
from tests.support.samples import sample
from tests.support.workers import rolling

TEXT = "Explain how a hash table resolves collisions"


def accepted(state: RolloutState, offset: int = 7, **fields: object) -> Accepted:
    value = msgspec.json.encode({"prompt": TEXT, **fields})
    found = admit(Incoming(SourcePosition("prompts", 1, offset), 0, b"k", value), state, Limits())
    assert isinstance(found, Accepted)
    return found


def scores(*, cache_hit: bool) -> SemanticScores:
    return msgspec.structs.replace(
        sample(SemanticScores),
        overall=0.9,
        coherence=0.8,
        relevance=0.7,
        centroid_distance=1.5,
        cache_hit=cache_hit,
    )


def batch(rows: list[Row], state: RolloutState | None = None) -> MeasurementBatch:
    return measurement_batch(
        rows,
        state or rolling(),
        worker_id="w",
        incarnation="i",
        source_topic="prompts",
    )


@pytest.mark.parametrize("cache_hit", [False, True])
def test_semantic_row_holds_the_scores(cache_hit: bool) -> None:
    """The candidate's row has the blended score and what it was made of."""
    one = accepted(rolling(share=1.0))
    row = result_row(one, Semantic(scores(cache_hit=cache_hit), None, 0.002, 0.003), 0.05)
    flags = RowFlag.CANDIDATE | RowFlag.SEMANTIC | RowFlag.CACHE_LOOKUP
    assert row.flags == flags | (RowFlag.CACHE_HIT if cache_hit else 0)
    assert row.score == blend(one.rules.overall, 0.9, 0.3)
    assert (row.rules_score, row.processing_seconds) == (one.rules.overall, 0.05)
    assert (row.coherence, row.relevance, row.centroid_distance) == (0.8, 0.7, 1.5)
    assert (row.embed_seconds, row.prompt_chars) == (0.002, len(TEXT))


def test_control_row_holds_the_rules_score() -> None:
    """Without a semantic half both scores are that of the rules, and no flag is set."""
    one = accepted(rolling(share=0.0))
    row = result_row(one, None, 0.01)
    assert (row.flags, row.score, row.rules_score) == (0, one.rules.overall, one.rules.overall)
    assert (row.coherence, row.relevance, row.embed_seconds) == (0.0, 0.0, 0.0)


def test_fallback_row_is_a_semantic_error() -> None:
    """A failed semantic half is flagged, and its score is that of the rules (M34)."""
    one = accepted(rolling(share=1.0))
    row = result_row(one, Semantic(None, FallbackReason.TIMEOUT, 5.0, 5.0), 5.01)
    assert row.flags == RowFlag.CANDIDATE | RowFlag.FALLBACK
    assert (row.score, row.embed_seconds) == (one.rules.overall, 5.0)


def test_shadow_row_is_about_green() -> None:
    """In shadow the row has the score that green would have given."""
    one = accepted(rolling(share=0.0, shadow_share=1.0))
    row = result_row(one, Semantic(scores(cache_hit=False), None, 0.0, 0.0), 0.01)
    assert row.flags & RowFlag.SHADOW
    assert row.score == blend(one.rules.overall, 0.9, 0.3)


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        (RejectionCode.EMPTY, RowFlag.REJECTED),
        (RejectionCode.INTERNAL_ERROR, RowFlag.REJECTED | RowFlag.SYSTEM_ERROR),
    ],
)
def test_rejected_row_is_counted(code: RejectionCode, flags: RowFlag) -> None:
    """A dead letter is a row, and only one that is our fault is a system error (M33)."""
    source = Incoming(SourcePosition("prompts", 3, 9), 0, None, None)
    row = rejected_row(Refused(source, code, "why"))
    assert (row.partition, row.offset, row.flags) == (3, 9, flags)
    assert row.score == 0.0


def test_our_failure_counts_on_its_arm() -> None:
    """A system error on a candidate's prompt is the candidate's: else its gate could never fail."""
    source = Incoming(SourcePosition("prompts", 3, 9), 0, None, None)
    row = rejected_row(Refused(source, RejectionCode.INTERNAL_ERROR, "why", Arm.CANDIDATE))
    assert row.flags == RowFlag.REJECTED | RowFlag.SYSTEM_ERROR | RowFlag.CANDIDATE


def test_a_bucket_is_measured_where_it_decided() -> None:
    """Not where nothing is split, a segment forces or is left out, or a prompt was refused."""
    segments = [
        Segment(name="pro", attribute="plan", values=["pro"]),
        Segment(name="vip", attribute="plan", values=["vip"], force="candidate"),
    ]

    def buckets(state: RolloutState) -> list[int]:
        made = [
            accepted(state, i, attributes={"plan": p}) for i, p in enumerate(["pro", "vip", ""])
        ]
        source = Incoming(SourcePosition("prompts", 1, 9), 0, None, None)
        rows = [result_row(one, None, 0.5) for one in made]
        refused = rejected_row(Refused(source, RejectionCode.EMPTY, "why"))
        return batch([*rows, refused], state).rows().bucket.tolist()

    split = rolling(share=0.5, segments=segments)
    place = accepted(split).assignment.bucket
    assert buckets(split) == [place, NO_BUCKET, place, NO_BUCKET]
    shadow = msgspec.structs.replace(split, share=0.0, shadow_share=0.5)
    assert buckets(shadow) == buckets(split)
    limited = msgspec.structs.replace(split, only_segments=["pro"])
    assert buckets(limited) == [place, NO_BUCKET, NO_BUCKET, NO_BUCKET]
    for over in ({"green": None, "share": 0.0}, {"hash_version": "other"}):
        assert buckets(msgspec.structs.replace(split, **over)) == [NO_BUCKET] * 4


def test_batch_is_read_back_as_it_was_made() -> None:
    """Rows survive the columns, msgpack and back; segments are named once."""
    segments = [Segment(name="pro", attribute="plan", values=["pro"])]
    state = rolling(3, share=1.0, segments=segments)
    rows = [
        result_row(accepted(state, 4, attributes={"plan": "pro"}), None, 0.5),
        result_row(accepted(state, 5), None, 0.25),
        rejected_row(
            Refused(
                Incoming(SourcePosition("prompts", 0, 2), 0, None, None), RejectionCode.EMPTY, "why"
            )
        ),
        result_row(accepted(state, 6, attributes={"plan": "pro"}), None, 0.125),
    ]
    made = batch(rows, state)
    read = decode_log_record(encode_log_record(made))
    assert read == made
    assert isinstance(read, MeasurementBatch)
    assert (read.revision, read.rollout_id, read.service) == (3, "r-1", "default")
    found = read.rows()
    assert found.offset.tolist() == [4, 5, 2, 6]
    assert found.partition.tolist() == [1, 1, 0, 1]
    assert found.processing_seconds.tolist() == [0.5, 0.25, 0.0, 0.125]
    names = [read.segments[index] for index in found.segment]
    assert names == ["pro", "rest", "rest", "pro"]
    assert read.segments == ["pro", "rest"]


def test_segments_do_not_depend_on_the_order_of_rows() -> None:
    """The same rows in another order name the same segments in the same places."""
    rows = [Row(0, n, 0, segment) for n, segment in enumerate(["b", "a", "rest"])]
    segments = [Segment(name=name, attribute="plan", values=[name]) for name in "bca"]
    made = batch(rows, rolling(segments=segments))
    assert made.segments == ["a", "b", "c", "rest"]
    assert np.array_equal(made.rows().segment, [1, 0, 3])


def with_vector(offset: int, arm: RowFlag, seed: int, reference: str = "a" * 16) -> Row:
    features = np.random.default_rng(seed).normal(0.0, 0.1, 16).astype(np.float32)
    return Row(1, offset, int(arm | RowFlag.SEMANTIC), fourier=FourierRow(reference, features))


def test_embeddings_are_summed_by_arm() -> None:
    """Each arm's sum is of all of its own rows that have a vector."""
    control, candidate = RowFlag(0), RowFlag.CANDIDATE
    rows = [
        with_vector(1, control, 1),
        with_vector(2, candidate, 2),
        Row(1, 3, int(candidate | RowFlag.FALLBACK)),
        with_vector(4, candidate, 3),
        Row(1, 5, 0),
        with_vector(6, control | RowFlag.SHADOW, 4),
        with_vector(7, candidate, 5),
    ]
    read = decode_log_record(encode_log_record(batch(rows)))
    assert isinstance(read, MeasurementBatch)
    for found, chosen in (
        (read.control_embeddings, [rows[0], rows[5]]),
        (read.candidate_embeddings, [rows[1], rows[3], rows[6]]),
    ):
        assert found is not None
        assert (found.reference, found.rows) == ("a" * 16, len(chosen))
        expected = np.sum([row.fourier.features for row in chosen if row.fourier], axis=0)
        np.testing.assert_allclose(stacked_sums([found])[0], expected, atol=1e-6)


def test_an_arm_without_vectors_has_no_sum() -> None:
    """Rules alone, or a model that is away: the record says nothing of embeddings."""
    rows = [Row(1, 1, 0), with_vector(2, RowFlag.CANDIDATE, 1)]
    assert batch(rows).control_embeddings is None
    assert batch(rows).candidate_embeddings is not None
    assert batch(rows[:1]).candidate_embeddings is None
