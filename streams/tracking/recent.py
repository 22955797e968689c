"""Events that were not sampled, for a while: one that is curated or rated is written after all."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

__all__ = ["MAX_BYTES", "Recent", "RecentEvents"]

MAX_BYTES = 64 * 2**20
"""Of events, as they came: about 100 s of 500 prompts a second. A curator picks cases once a
minute: with less, a case at that pace has its numbers but not its times; more is memory that a
process keeps."""
_OVERHEAD_BYTES = 300
"""Of an entry beside its value: its key, and what Python keeps for both."""


class Recent(NamedTuple):
    """An enriched event, as it was read."""

    value: bytes
    made_ms: int
    published_ms: int


class RecentEvents:
    """Bounded in bytes; the oldest are forgotten first.

    Args:
        max_bytes: of all values and what they need around them.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._events: OrderedDict[str, Recent] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event_id: str, recent: Recent) -> None:
        """Remember an event."""
        self.pop(event_id)
        self._events[event_id] = recent
        self.bytes += len(recent.value) + _OVERHEAD_BYTES
        while self.bytes > self._max_bytes:
            _, gone = self._events.popitem(last=False)
            self.bytes -= len(gone.value) + _OVERHEAD_BYTES

    def pop(self, event_id: str) -> Recent | None:
        """The event, which is then forgotten; None when it is not remembered."""
        found = self._events.pop(event_id, None)
        if found is not None:
            self.bytes -= len(found.value) + _OVERHEAD_BYTES
        return found
