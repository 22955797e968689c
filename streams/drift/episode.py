"""An episode of drift: it begins with one alarm, and ends when rows are quiet again."""

from __future__ import annotations

import msgspec

from schemas.drift import DriftDetector, DriftDirection, DriftFeature

__all__ = ["Episode", "Finding"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """That an episode begins or ends."""

    feature: DriftFeature
    detector: DriftDetector
    begins: bool
    statistic: float
    threshold: float
    direction: DriftDirection
    first_offset: int
    """Of the log: where the evidence of drift begins."""
    reference: str | None
    """Id of the reference; None: the first rows."""
    watched_anew: bool = False
    """It ends because the watch does: another reference or another model takes its place."""


class Episode(msgspec.Struct, kw_only=True):
    """Of one feature: its detectors rest, and the mean of its rows decides when it is over."""

    detector: DriftDetector
    direction: DriftDirection
    first_offset: int
    rows: int = 0
    """In the present window."""
    blocks: int = 0
    total: float = 0.0
    """Of the blocks' means in the direction of the drift."""

    @property
    def mean(self) -> float:
        """Of the present window, in the direction of the drift."""
        return self.total / self.blocks if self.blocks else 0.0

    def finding(
        self,
        feature: DriftFeature,
        reference: str | None,
        statistic: float,
        threshold: float,
        *,
        begins: bool,
    ) -> Finding:
        """Its begin or its end, as it is said.

        Args:
            feature: that it is of.
            reference: id of what it is held against; None: the first rows.
            statistic: of its detector, or of the rows that end it.
            threshold: that the statistic is above, or quiet below.
            begins: or ends.
        """
        return Finding(
            feature=feature,
            detector=self.detector,
            begins=begins,
            statistic=statistic,
            threshold=threshold,
            direction=self.direction,
            first_offset=self.first_offset,
            reference=reference,
        )

    def take(self, mean: float, rows: int) -> None:
        """Add a block.

        Args:
            mean: of the block, in the direction of the drift.
            rows: that it stands for.
        """
        self.total += mean
        self.blocks += 1
        self.rows += rows

    def is_over(self, quiet: float, clear_rows: int) -> bool:
        """Whether a window has just ended whose mean is quiet; another one begins if it was not.

        Args:
            quiet: what the mean must not be above.
            clear_rows: rows of a window.
        """
        if self.rows < clear_rows:
            return False
        if self.mean <= quiet:
            return True
        self.rows = self.blocks = 0
        self.total = 0.0
        return False
