"""From a record of a topic to an event that the console can take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas import cloudevents
from schemas.control import AlertEvent, ControlEvent, GateStatus, WindowMetrics
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase
from schemas.log import Heartbeat, MeasurementBatch, decode_log_record
from schemas.rollout import RolloutState
from schemas.topics import Topic

__all__ = ["TOPICS", "CaseGone", "Taken", "decode"]

TOPICS = (
    Topic.ALERTS,
    Topic.CONTROL,
    Topic.CURATED,
    Topic.LOG,
    Topic.METRICS,
    Topic.ROLLOUT,
)
"""What the console reads."""


class CaseGone(msgspec.Struct, frozen=True):
    """A curated case that was taken out again: a record without a value."""

    id: str


Taken = (
    AlertEvent
    | CaseGone
    | ControlEvent
    | CuratedCase
    | GateStatus
    | Heartbeat
    | MeasurementBatch
    | RolloutState
    | WindowMetrics
)

_STATUS = cloudevents.EVENT_TYPES[GateStatus]
# The tag is the first entry of the msgpack map: most records of the log are told by it unread.
_WANTED_OF_LOG = (b"heartbeat", b"measurement_batch")
_TAG_BYTES = 40


def decode(
    topic: Topic,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
) -> Taken | None:
    """The event of a record; None for one that the console has no use for.

    Raises:
        DecodeError: bytes that are no event of this topic.
    """
    if value is None:
        if topic is Topic.CURATED and key is not None:
            return CaseGone(key.decode("utf-8", "replace"))
        return None
    match topic:
        case Topic.LOG:
            return _of_log(value)
        case Topic.METRICS:
            if cloudevents.attributes(headers).get("type") == _STATUS:
                return cloudevents.decode_json(value, GateStatus)
            return cloudevents.decode_json(value, WindowMetrics)
        case Topic.CONTROL:
            event: ControlEvent = cloudevents.decode_json(value, cloudevents.CONTROL_EVENT)
            return event
        case Topic.ROLLOUT:
            return cloudevents.decode_json(value, RolloutState)
        case Topic.ALERTS:
            return cloudevents.decode_json(value, AlertEvent)
        case Topic.CURATED:
            return cloudevents.decode_json(value, CuratedCase)
    raise DecodeError(f"{topic} is no topic of the console")


def _of_log(value: bytes) -> Heartbeat | MeasurementBatch | None:
    head = value[:_TAG_BYTES]
    if not any(tag in head for tag in _WANTED_OF_LOG):
        return None
    record = decode_log_record(value)
    return record if isinstance(record, Heartbeat | MeasurementBatch) else None
