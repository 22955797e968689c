"""What the tracker needs of a Kafka record, whoever has read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from schemas import cloudevents
from schemas.prompts import SourcePosition

__all__ = ["Record", "made_ms", "position_of"]


class Record(Protocol):
    """A record as aiokafka gives it."""

    @property
    def topic(self) -> str:
        """Its full name."""

    @property
    def partition(self) -> int:
        """Of the topic."""

    @property
    def offset(self) -> int:
        """In the partition."""

    @property
    def timestamp(self) -> int:
        """The broker's, ms since the epoch."""

    @property
    def value(self) -> bytes | None:
        """As it came."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """As they came."""


def made_ms(record: Record) -> int:
    """When an event was made, by its header; when it was published, where that is not said."""
    text = cloudevents.attributes(record.headers).get("time", "")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return record.timestamp
    return record.timestamp if moment.tzinfo is None else round(moment.timestamp() * 1000)


def position_of(record: Record) -> SourcePosition:
    """Where it stands."""
    return SourcePosition(record.topic, record.partition, record.offset)
