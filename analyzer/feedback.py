"""From the records of `prompts.feedback` to columns for the log, or to a coded rejection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schemas.cloudevents import decode_json
from schemas.errors import DecodeError
from schemas.feedback import (
    Attribution,
    FeedbackGiven,
    FeedbackKind,
    FeedbackRejected,
    FeedbackRejectionCode,
)
from schemas.feedback_batch import FEEDBACK_COLUMNS, FeedbackBatch, FeedbackFlag
from schemas.prompts import SourcePosition

__all__ = [
    "MAX_BYTES",
    "Attributed",
    "FeedbackError",
    "feedback_batches",
    "read_feedback",
    "rejection",
]

MAX_BYTES = 2**16
"""A record beyond is no feedback: the longest that is valid has a tenth of it."""
KEPT_BYTES = 2**14
_MAX_SEGMENTS = 255
"""Names that the column can index."""

_FLAGS = {
    FeedbackKind.USER_RATING: FeedbackFlag.USER_RATING,
    FeedbackKind.EXPERT_LABEL: FeedbackFlag.EXPERT_LABEL,
    FeedbackKind.JUDGE_SCORE: FeedbackFlag.JUDGE_SCORE,
}


class FeedbackError(Exception):
    """Feedback that cannot be counted.

    Args:
        code: why.
        reason: the same in words, with the numbers.
        event_id: what it is about, where that could be read.
    """

    def __init__(
        self, code: FeedbackRejectionCode, reason: str, event_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.event_id = event_id


class Attributed(NamedTuple):
    """Feedback of which it is known whose result it is about."""

    source: SourcePosition
    given: FeedbackGiven
    attribution: Attribution


def read_feedback(value: bytes | None) -> FeedbackGiven:
    """Decode a record.

    Raises:
        FeedbackError: it is no feedback.
    """
    codes = FeedbackRejectionCode
    if not value:
        raise FeedbackError(codes.EMPTY, "a record without a value")
    if len(value) > MAX_BYTES:
        raise FeedbackError(codes.RECORD_TOO_LARGE, f"{len(value)} bytes, more than {MAX_BYTES}")
    try:
        given = decode_json(value, FeedbackGiven)
    except DecodeError as error:
        raise FeedbackError(_code(str(error)), str(error)) from error
    if given.kind is FeedbackKind.EXPERT_LABEL and given.value not in (0.0, 1.0):
        raise FeedbackError(
            codes.OUT_OF_RANGE,
            f"an expert_label is 0 (wrong) or 1 (correct), not {given.value:g}",
            given.event_id,
        )
    return given


def _code(reason: str) -> FeedbackRejectionCode:
    # As msgspec says it: a wrong shape has a path, a limit that is broken has a comparison too.
    if "`$.value`" in reason and (">=" in reason or "<=" in reason):
        return FeedbackRejectionCode.OUT_OF_RANGE
    if reason.startswith(("Expected `", "Object ", "Invalid enum")):
        return FeedbackRejectionCode.WRONG_SHAPE
    return FeedbackRejectionCode.NOT_JSON


def rejection(source: SourcePosition, value: bytes | None, error: FeedbackError
              ) -> FeedbackRejected:  # fmt: skip
    """The dead letter of a record."""
    payload = value or b""
    return FeedbackRejected(
        id=source.event_id(),
        source=source,
        event_id=error.event_id,
        code=error.code,
        reason=str(error),
        payload=payload[:KEPT_BYTES],
        payload_bytes=len(payload),
        payload_truncated=len(payload) > KEPT_BYTES,
    )


def feedback_batches(feedback: Sequence[Attributed]) -> list[FeedbackBatch]:
    """One batch for each service that is spoken of, in the order of their names.

    One and not several: within a source partition the log drops what is not beyond all that it
    has counted.

    Args:
        feedback: of one poll, all of one topic, offsets rising within a partition.
    """
    by_service: dict[str, list[Attributed]] = {}
    for one in feedback:
        by_service.setdefault(one.attribution.service, []).append(one)
    return [_batch(service, by_service[service]) for service in sorted(by_service)]


def _batch(service: str, feedback: list[Attributed]) -> FeedbackBatch:
    segments: dict[str, int] = {}
    rows = []
    for one in feedback:
        name = one.attribution.segment
        if name not in segments and len(segments) == _MAX_SEGMENTS:
            # Made up by somebody: no policy has so many.
            name = next(iter(segments))
        candidate = FeedbackFlag.CANDIDATE if one.attribution.candidate else FeedbackFlag(0)
        rows.append(
            (
                one.source.partition,
                one.source.offset,
                _FLAGS[one.given.kind] | candidate,
                segments.setdefault(name, len(segments)),
                one.attribution.rollout_revision,
                one.given.value,
            )
        )
    columns = dict(zip(FEEDBACK_COLUMNS, zip(*rows, strict=True), strict=True))
    return FeedbackBatch(
        service=service,
        source_topic=feedback[0].source.topic,
        segments=list(segments),
        **{
            name: np.array(columns[name], dtype=dtype).tobytes()
            for name, dtype in FEEDBACK_COLUMNS.items()
        },
    )
