"""How many prompts a poll takes: as many as are analysed in a given time."""

from __future__ import annotations

__all__ = ["BatchSizer"]

_SMOOTHING = 0.3
"""Weight of the newest batch: three batches after a change most of the old pace is forgotten."""


class BatchSizer:
    """Sizes batches by the pace of the ones before.

    Large batches share the cost of a transaction, and every prompt of one waits for the slowest.
    A fixed number fits neither one-line prompts from the cache nor pages that must be embedded.

    Args:
        max_records: the most that a poll takes.
        target_seconds: what the analysis of a batch should take.
    """

    MIN_RECORDS = 8
    """Fewer do not pay for a transaction, whatever they take."""

    def __init__(self, max_records: int, target_seconds: float) -> None:
        self._max_records = max_records
        self._target_s = target_seconds
        self._seconds_a_record: float | None = None

    @property
    def records(self) -> int:
        """The most that the next poll should take; an eighth of the limit before the first."""
        if self._seconds_a_record is None:
            wanted = self._max_records / 8
        else:
            wanted = self._target_s / self._seconds_a_record
        return int(min(max(wanted, self.MIN_RECORDS, 1), self._max_records))

    def update(self, records: int, seconds: float) -> None:
        """Take what a batch of at least one record took.

        >>> sizer = BatchSizer(256, 0.15)
        >>> first = sizer.records
        >>> sizer.update(32, 0.032)
        >>> first, sizer.records
        (32, 150)
        """
        pace = max(seconds, 1e-6) / records
        if self._seconds_a_record is None:
            self._seconds_a_record = pace
        else:
            self._seconds_a_record += _SMOOTHING * (pace - self._seconds_a_record)
