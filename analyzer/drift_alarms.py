"""When drift alarms were open, by what the control topic says."""

from __future__ import annotations

import msgspec

from schemas.control import ControlEvent, DriftCleared, DriftDetected
from schemas.drift import DriftFeature

__all__ = ["DriftAlarms"]

_KEPT_MS = 8 * 86_400_000
"""How long an episode that is over is remembered: a day longer than events are kept, so that a
curator that was away for as long as that still knows of it."""


class _Episode(msgspec.Struct):
    feature: DriftFeature
    from_ms: int
    to_ms: int | None = None


class DriftAlarms:
    """The episodes of drift of all services, in log time."""

    def __init__(self) -> None:
        self._episodes: dict[str, list[_Episode]] = {}

    def take(self, event: ControlEvent) -> None:
        """Take note of a control event; those that are not about drift change nothing."""
        if not isinstance(event, DriftDetected | DriftCleared):
            return
        episodes = self._episodes.setdefault(event.service, [])
        open_ = next((e for e in episodes if e.feature is event.feature and e.to_ms is None), None)
        if isinstance(event, DriftCleared):
            if open_ is not None:
                open_.to_ms = event.at_ms
        elif open_ is None:
            episodes.append(_Episode(event.feature, event.at_ms))
        oldest_ms = event.at_ms - _KEPT_MS
        episodes[:] = [e for e in episodes if e.to_ms is None or e.to_ms >= oldest_ms]

    def open_between(self, service: str, from_ms: int, to_ms: int) -> bool:
        """Whether an alarm was open at any time from one moment to before another."""
        return any(
            e.from_ms < to_ms and (e.to_ms is None or e.to_ms >= from_ms)
            for e in self._episodes.get(service, ())
        )
