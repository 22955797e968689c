"""Watches a bit of each row: HDDM-W on the rates of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.drift import DriftDetector, DriftDirection, DriftFeature, DriftReading, DriftRules
from streams.drift.episode import Episode, Finding
from streams.drift.hddm_w import HddmW

__all__ = ["BitWatch", "new_bit_watch"]


class BitWatch(msgspec.Struct, kw_only=True, tag="bit"):
    """Of one feature; changed in place. It needs no reference: the lowest rate so far is its."""

    feature: DriftFeature
    size: int
    """Rows of a block."""
    share: float
    """Rows between two false alarms."""
    hddm_w: HddmW
    rested: int = 0
    """Where in the log the rate was at its lowest."""
    base: float = 0.0
    quiet: float = 0.0
    """In an episode: the rate before it, and what may be above that when it is over."""
    episode: Episode | None = None
    reference: str | None = None
    """No reference has it."""

    def take(
        self, means: Sequence[float], rows: int, offset: int, rules: DriftRules
    ) -> list[Finding]:
        """Take blocks.

        Args:
            means: rates of the blocks; one that is not finite is left out.
            rows: that each stands for.
            offset: of the record in the log.
            rules: in force.
        """
        found = []
        for mean in means:
            if mean - mean != 0.0:
                continue
            finding = (
                self._watch(mean, offset) if self.episode is None else self._wait(mean, rows, rules)
            )
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

    def _wait(self, rate: float, rows: int, rules: DriftRules) -> Finding | None:
        episode = self.episode
        assert episode is not None  # asked by the caller
        episode.take(rate - self.base, rows)
        if not episode.is_over(self.quiet, rules.clear_rows):
            return None
        self.episode = None
        self.hddm_w = _detector(self.share, self.size)
        return self._finding(episode, episode.mean, self.quiet, begins=False)

    def _finding(
        self, episode: Episode, statistic: float, threshold: float, *, begins: bool
    ) -> Finding:
        return Finding(
            feature=self.feature,
            detector=episode.detector,
            begins=begins,
            statistic=statistic,
            threshold=threshold,
            direction=episode.direction,
            first_offset=episode.first_offset,
            reference=self.reference,
        )


def _detector(share: float, size: int) -> HddmW:
    return HddmW(confidence=min(size / share, 0.5), bits=size)


def new_bit_watch(feature: DriftFeature, *, size: int, share: float) -> BitWatch:
    """A watch that has seen nothing.

    Args:
        feature: a bit of each row.
        size: rows of a block.
        share: rows between two false alarms.
    """
    return BitWatch(feature=feature, size=size, share=share, hddm_w=_detector(share, size))
