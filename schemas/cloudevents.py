"""CloudEvents 1.0 in Kafka's binary content mode: attributes as ``ce_`` headers, data as the value.

Source: CloudEvents 1.0.2, Kafka protocol binding 1.0.2, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from schemas.control import (
    AlertEvent,
    AlertUndelivered,
    ControlEvent,
    Decision,
    GateStatus,
    WindowMetrics,
)
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase, FeedbackRejected
from schemas.log import OperatorCommand
from schemas.prompts import PromptEnriched, PromptRejected
from schemas.rollout import RolloutState

__all__ = [
    "CONTROL_EVENT",
    "EVENT_TYPES",
    "Headers",
    "attributes",
    "decode_json",
    "encode_json",
    "event_type",
    "headers",
]

Headers = list[tuple[str, bytes]]
T = TypeVar("T")

EVENT_TYPES: dict[type, str] = {
    PromptEnriched: "driftgate.prompt.enriched.v1",
    PromptRejected: "driftgate.prompt.rejected.v1",
    FeedbackRejected: "driftgate.feedback.rejected.v1",
    CuratedCase: "driftgate.curated.case.v1",
    OperatorCommand: "driftgate.operator.command.v1",
    GateStatus: "driftgate.gate.status.v1",
    WindowMetrics: "driftgate.window.metrics.v1",
    RolloutState: "driftgate.rollout.state.v1",
    AlertEvent: "driftgate.alert.v1",
    AlertUndelivered: "driftgate.alert.undelivered.v1",
}
"""CloudEvents ``type`` by struct; a control event's type holds its tag, see :func:`event_type`."""

_json = msgspec.json.Encoder()


def event_type(event: msgspec.Struct) -> str:
    """The CloudEvents ``type`` of an event."""
    if isinstance(event, Decision):
        return f"driftgate.{event.__struct_config__.tag}.v1"
    return EVENT_TYPES[type(event)]


def headers(
    event: msgspec.Struct,
    *,
    id: str,
    source: str,
    subject: str,
    time_ms: int,
    extensions: Mapping[str, str] | None = None,
) -> Headers:
    """The ``ce_`` headers of an event.

    Args:
        event: the data, whose type gives ``ce_type``.
        id: unique together with ``source``; equal in a repetition.
        source: a URI reference, for example ``/driftgate/monitor``.
        subject: the service.
        time_ms: when it happened, ms since the epoch.
        extensions: more attributes; names are lower-case letters and digits.
    """
    version, *shared = _shared(source, event_type(event), subject, time_ms)
    return [
        version,
        ("ce_id", id.encode()),
        *shared,
        *((f"ce_{name}", value.encode()) for name, value in (extensions or {}).items()),
    ]


@lru_cache(maxsize=64)
def _shared(source: str, type: str, subject: str, time_ms: int) -> Headers:  # noqa: A002 - likewise
    """The headers that all events of a kind and moment have: most of a batch's."""
    # Whole seconds and the rest apart: a float of both loses the last digit of far-off times.
    seconds, rest_ms = divmod(time_ms, 1000)
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ms * 1000)
    values = {
        "ce_specversion": "1.0",
        "ce_source": source,
        "ce_type": type,
        "ce_subject": subject,
        "ce_time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "content-type": "application/json",
    }
    return [(name, value.encode()) for name, value in values.items()]


def attributes(headers: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """The CloudEvents attributes among a record's headers, without their prefix."""
    return {
        name[3:]: value.decode("utf-8", "replace")
        for name, value in headers
        if name.startswith("ce_") and value is not None
    }


def encode_json(event: msgspec.Struct) -> bytes:
    """An event's JSON value."""
    return _json.encode(event)


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode_json(value: bytes | None, type: type[T]) -> T:  # noqa: A002 - as msgspec calls it
    """A record's JSON value as its type.

    Raises:
        DecodeError: no value, not JSON, or JSON of the wrong shape; the message says where.
    """
    if value is None:
        raise DecodeError("a record without a value")
    decoder = _decoders.get(type)
    if decoder is None:
        decoder = _decoders[type] = msgspec.json.Decoder(type)
    try:
        return decoder.decode(value)  # type: ignore[no-any-return]  # the decoder of `type`
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(str(error)) from error
    except RecursionError as error:
        raise DecodeError("JSON is nested too deeply") from error


CONTROL_EVENT: Any = ControlEvent
"""To be given to :func:`decode_json`; a union is no ``type`` to the type checker."""
