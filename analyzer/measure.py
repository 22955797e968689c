"""From the results of a poll to one measurement batch: a row a prompt, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analyzer.blend import blend
from analyzer.fourier import FourierRow, fourier_sum
from analyzer.pipeline import Accepted, Refused, Semantic
from analyzer.route import NO_SEGMENT, is_split
from schemas.drift import FourierSum
from schemas.log import COLUMNS, MeasurementBatch, RowFlag
from schemas.prompts import Arm, RejectionCode
from schemas.rollout import NO_BUCKET, RolloutState

__all__ = ["Row", "measurement_batch", "rejected_row", "result_row"]


class Row(NamedTuple):
    """One measured prompt; the fields are the columns, but for the segment's name and the last."""

    partition: int
    offset: int
    flags: int
    segment: str = NO_SEGMENT
    processing_seconds: float = 0.0
    embed_seconds: float = 0.0
    rules_score: float = 0.0
    score: float = 0.0
    coherence: float = 0.0
    relevance: float = 0.0
    centroid_distance: float = 0.0
    prompt_chars: int = 0
    bucket: int = NO_BUCKET
    fourier: FourierRow | None = None
    """Goes into its arm's sum."""


def rejected_row(refused: Refused) -> Row:
    """The row of a dead letter: it is counted, and of an error of ours the arm is known."""
    flags = RowFlag.REJECTED
    if refused.code is RejectionCode.INTERNAL_ERROR:
        flags |= RowFlag.SYSTEM_ERROR
        if refused.arm is Arm.CANDIDATE:
            flags |= RowFlag.CANDIDATE
    source = refused.incoming.source
    return Row(source.partition, source.offset, int(flags), refused.segment)


def result_row(accepted: Accepted, semantic: Semantic | None, processing_seconds: float) -> Row:
    """The row of an analysed prompt, about the deployment that is measured on it.

    Args:
        accepted: the prompt.
        semantic: of that deployment, if it has a semantic half.
        processing_seconds: from the poll to that deployment's result.
    """
    assignment, source = accepted.assignment, accepted.incoming.source
    # Numbers from here on: each operation on the flags themselves costs a microsecond.
    flags = 0
    if assignment.arm is Arm.CANDIDATE:
        flags |= int(RowFlag.CANDIDATE)
    if assignment.shadow_deployment is not None:
        flags |= int(RowFlag.SHADOW)
    rules = accepted.rules.overall
    row = Row(
        source.partition,
        source.offset,
        flags,
        assignment.segment,
        processing_seconds,
        rules_score=rules,
        score=rules,
        prompt_chars=len(accepted.prompt.prompt),
        bucket=assignment.bucket,
    )
    if semantic is None:
        return row
    if semantic.scores is None:
        return row._replace(
            flags=flags | int(RowFlag.FALLBACK), embed_seconds=semantic.embed_seconds
        )
    scores = semantic.scores
    flags |= int(RowFlag.SEMANTIC) | int(RowFlag.CACHE_LOOKUP)
    if scores.cache_hit:
        flags |= int(RowFlag.CACHE_HIT)
    return row._replace(
        flags=flags,
        embed_seconds=semantic.embed_seconds,
        score=blend(rules, scores.overall, accepted.measured.semantic_weight),
        coherence=scores.coherence,
        relevance=scores.relevance,
        centroid_distance=scores.centroid_distance,
        fourier=semantic.fourier,
    )


def measurement_batch(
    rows: Sequence[Row],
    state: RolloutState,
    *,
    worker_id: str,
    incarnation: str,
    source_topic: str,
) -> MeasurementBatch:
    """The batch of one poll.

    Args:
        rows: at least one, offsets rising within a partition.
        state: the rollout state that all of them were made under.
        worker_id: who measured.
        incarnation: which start of it.
        source_topic: where the prompts came from.
    """
    # All that there are, not those that came up: batches with the same names are counted together.
    segments = sorted({NO_SEGMENT, *(segment.name for segment in state.segments)})
    split = {name: is_split(state, name) for name in segments}
    values = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    places = {name: place for place, name in enumerate(segments)}
    values["segment"] = [places[row.segment] for row in rows]
    # A bucket that decided nothing says nothing about the split.
    values["bucket"] = [row.bucket if split[row.segment] else NO_BUCKET for row in rows]
    columns = {
        name: np.array(values[name], dtype=dtype).tobytes() for name, dtype in COLUMNS.items()
    }
    return MeasurementBatch(
        service=state.service,
        worker_id=worker_id,
        incarnation=incarnation,
        revision=state.revision,
        rollout_id=state.rollout_id,
        source_topic=source_topic,
        segments=segments,
        control_embeddings=_embeddings(rows, 0),
        candidate_embeddings=_embeddings(rows, RowFlag.CANDIDATE),
        **columns,
    )


def _embeddings(rows: Sequence[Row], arm: int) -> FourierSum | None:
    """The sum over the rows of an arm that have a vector."""
    ours = [r.fourier for r in rows if r.fourier and r.flags & RowFlag.CANDIDATE == arm]
    if not ours:
        return None
    # A worker has one model, and that one map.
    return fourier_sum(ours[0].reference, np.stack([row.features for row in ours]))
