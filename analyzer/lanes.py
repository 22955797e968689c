"""The curation of every partition that a curator owns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from analyzer.casebook import Casebook
from analyzer.curation import Curation, CurationLimits
from analyzer.drift_alarms import DriftAlarms
from analyzer.feedback_queue import Accepted
from analyzer.served import Served
from schemas.feedback import CuratedCase

__all__ = ["Lanes"]

Key = TypeVar("Key", bound=Hashable)
"""Names a partition, of `prompts.enriched` or of `prompts.feedback`."""


class Lanes(Generic[Key]):
    """One :class:`Curation` a partition, made when it is first used.

    Args:
        limits: of each.
        book: the cases of all.
        alarms: of drift.
        passed_over: counts what might have been a case, by why it is none.
    """

    def __init__(
        self,
        limits: CurationLimits,
        book: Casebook,
        alarms: DriftAlarms,
        passed_over: Counter[str],
    ) -> None:
        self._limits = limits
        self._book = book
        self._alarms = alarms
        self._passed_over = passed_over
        self._lanes: dict[Key, Curation] = {}
        self._seen_s: dict[Key, float] = {}

    def clear(self) -> None:
        """Forget all, because partitions may go to somebody else."""
        self._lanes.clear()
        self._seen_s.clear()

    def see(self, key: Key, one: Served, offset: int, now_s: float) -> list[CuratedCase]:
        """Take note of a result; the cases of the window that is over with it."""
        self._seen_s[key] = now_s
        return self._lane(key).see(one, offset)

    def hear(self, key: Key, accepted: Accepted) -> list[CuratedCase]:
        """The case that feedback makes, if it does."""
        given = accepted.attributed.given
        if given.value > self._limits.negative_up_to:
            return []
        if accepted.served is None:
            self._passed_over["not_remembered"] += 1
            return []
        case = self._lane(key).hear(accepted.served, given, accepted.timestamp_ms)
        return [] if case is None else [case]

    def close_idle(self, now_s: float) -> list[CuratedCase]:
        """The cases of windows that are over because no result has come for so long."""
        cases = []
        for key, seen_s in self._seen_s.items():
            lane = self._lanes[key]
            if lane.begin is not None and now_s - seen_s >= self._limits.window_seconds:
                cases += lane.close()
        return cases

    def next_offsets(self, positions: Iterable[tuple[Key, int]]) -> dict[Key, int]:
        """From where on results must be read again, for the cases that are still to come.

        Args:
            positions: what would be read next of each partition.

        Returns:
            Of those of which results were seen; of the others nothing is known.
        """
        found = {}
        for key, position in positions:
            if key in self._seen_s:
                begin = self._lanes[key].begin
                found[key] = position if begin is None else begin
        return found

    def _lane(self, key: Key) -> Curation:
        lane = self._lanes.get(key)
        if lane is None:
            lane = Curation(self._limits, self._book, self._alarms, self._passed_over)
            self._lanes[key] = lane
        return lane
