"""Watches a bit of each row: HDDM-W on rates."""

from __future__ import annotations

import msgspec

from schemas.drift import DriftDetector, DriftDirection, DriftFeature, DriftReading, DriftRules
from streams.drift.episode import Episode, Finding
from streams.drift.hddm_w import HddmW

__all__ = ["BIT_ROWS", "BitWatch", "new_bit_watch"]

BIT_ROWS = 64
"""Rows that a number of HDDM-W stands for, at 6 us a number: fewer cost more, more of them hide
how a rate begins to rise."""


class BitWatch(msgspec.Struct, kw_only=True, tag="bit"):
    """Of one feature; changed in place. It needs no reference: the lowest rate so far is its."""

    feature: DriftFeature
    share: float
    """Rows between two false alarms."""
    hddm_w: HddmW
    rows: int = 0
    hits: int = 0
    """That no number was made of yet."""
    rested: int = 0
    """Where in the log the rate was at its lowest."""
    base: float = 0.0
    quiet: float = 0.0
    """In an episode: the rate before it, and what may be above that when it is over."""
    episode: Episode | None = None
    reference: str | None = None
    """No reference has it."""

    def take(self, rows: int, hits: int, offset: int, rules: DriftRules) -> list[Finding]:
        """Take a record.

        Args:
            rows: that could have the bit.
            hits: that have it.
            offset: of the record in the log.
            rules: in force.
        """
        self.rows += rows
        self.hits += hits
        numbers = self.rows // BIT_ROWS
        found: list[Finding] = []
        if not numbers:
            return found
        rate, rows = self.hits / self.rows, self.rows // numbers
        self.rows = self.hits = 0
        for _ in range(numbers):
            if self.episode is None:
                finding = self._watch(rate, offset)
            else:
                finding = self._wait(self.episode, rate, rows, rules)
            if finding is not None:
                found.append(finding)
        return found

    def readings(self) -> list[DriftReading]:
        """How its detector stands."""
        statistic: float | None
        if self.episode is not None:
            statistic = self.episode.mean if self.episode.blocks else None
            threshold = self.quiet
        else:
            statistic, threshold = self.hddm_w.statistic, self.hddm_w.threshold
        return [
            DriftReading(
                feature=self.feature,
                detector=DriftDetector.HDDM_W,
                statistic=statistic,
                threshold=threshold,
                drifting=self.episode is not None,
                learned=True,
            )
        ]

    def _watch(self, rate: float, offset: int) -> Finding | None:
        drifted = self.hddm_w.update(rate)
        if not drifted:
            if self.hddm_w.at_rest:
                self.rested = offset
            return None
        statistic, threshold = self.hddm_w.statistic, self.hddm_w.threshold
        self.base, self.quiet = self.hddm_w.base, threshold / 2.0
        self.episode = Episode(
            detector=DriftDetector.HDDM_W, direction=DriftDirection.UP, first_offset=self.rested
        )
        return self._finding(self.episode, statistic, threshold, begins=True)

    def _wait(self, episode: Episode, rate: float, rows: int, rules: DriftRules) -> Finding | None:
        episode.take(rate - self.base, rows)
        if not episode.is_over(self.quiet, rules.clear_rows):
            return None
        self.episode = None
        self.hddm_w = _detector(self.share)
        return self._finding(episode, episode.mean, self.quiet, begins=False)

    def _finding(
        self, episode: Episode, statistic: float, threshold: float, *, begins: bool
    ) -> Finding:
        return episode.finding(self.feature, self.reference, statistic, threshold, begins=begins)


def _detector(share: float) -> HddmW:
    return HddmW(confidence=min(BIT_ROWS / share, 0.5), bits=BIT_ROWS)


def new_bit_watch(feature: DriftFeature, *, share: float) -> BitWatch:
    """A watch that has seen nothing.

    Args:
        feature: a bit of each row.
        share: rows between two false alarms.
    """
    return BitWatch(feature=feature, share=share, hddm_w=_detector(share))
