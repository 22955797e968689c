"""Watches the distribution of embeddings, by the sums of their Fourier features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.drift import (
    DriftDetector,
    DriftDirection,
    DriftFeature,
    DriftReading,
    DriftReference,
    DriftRules,
    ThresholdLine,
)
from streams.drift.episode import Episode, Finding
from streams.drift.rff_mmd import RffMmd, new_rff_mmd
from streams.drift.sums import ArmSums

__all__ = ["LEARNED_THRESHOLD", "EmbeddingWatch", "new_embedding_watch"]

Floats = npt.NDArray[np.float64]

LEARNED_THRESHOLD = ThresholdLine(intercept=-4.0, slope=1.1)
"""Where no reference was calibrated: above the lines of references of 2,000 real prompts of ten
domains, with the map that analyzers have without a reference."""
_LEARN_BLOCKS = 16
"""Blocks that the spread is taken from at least; its error is then 7 %."""
_MOST_BLOCKS = 40
"""They are kept while learning, at 4 KB each."""
_AT_REST = 1.0
"""Standard deviations: nothing speaks for drift."""


class _Known(msgspec.Struct, kw_only=True):
    """What embeddings are held against."""

    mean: Floats
    variance: float
    spread: float
    rows: int
    threshold: float


class _Learning(msgspec.Struct, kw_only=True):
    """The first rows, in blocks."""

    sums: list[Floats]
    counts: list[int]

    def take(self, sums: Floats, rows: int, learn_rows: int) -> None:
        """Add a record's sums to the last block, or begin another."""
        if self.counts and self.counts[-1] < learn_rows // _MOST_BLOCKS:
            self.sums[-1] += sums
            self.counts[-1] += rows
        else:
            self.sums.append(sums.copy())
            self.counts.append(rows)

    def is_done(self, learn_rows: int) -> bool:
        """Whether it has seen enough."""
        return sum(self.counts) >= learn_rows and len(self.counts) >= _LEARN_BLOCKS

    def known(self, threshold: float) -> _Known:
        """What the rows say of the features' mean and covariance."""
        counts = np.array(self.counts, np.float64)
        sums = np.stack(self.sums)
        mean = sums.sum(axis=0) / counts.sum()
        away = (sums / counts[:, None] - mean) * np.sqrt(counts)[:, None]
        products = away @ away.T
        blocks = len(counts)
        between = np.square(products).sum() - np.square(np.diagonal(products)).sum()
        # Rows that resemble their neighbours make blocks differ by more than their variance.
        variance = max(1.0 - float(mean @ mean), float(np.trace(products)) / (blocks - 1))
        spread = math.sqrt(2.0 * float(between) / (blocks * (blocks - 1)))
        return _Known(
            mean=mean,
            variance=variance,
            # All rows alike have no spread at all.
            spread=max(spread, 1e-6),
            rows=int(counts.sum()),
            threshold=threshold,
        )


class EmbeddingWatch(msgspec.Struct, kw_only=True):
    """Of one service; changed in place."""

    share: float
    """Rows between two false alarms."""
    reference: str | None
    known: _Known | None = None
    learning: _Learning | None = None
    mmd: RffMmd | None = None
    rested: int = 0
    """Where in the log nothing spoke for drift."""
    quiet_rows: int = 0
    """In an episode: rows since the statistic was last above half of its threshold."""
    statistic: float | None = None
    episode: Episode | None = None

    def take(self, arms: Sequence[ArmSums], offset: int, rules: DriftRules) -> list[Finding]:
        """Take the sums of a record.

        Args:
            arms: at least one, all with the same map.
            offset: of the record in the log.
            rules: in force.
        """
        sums = np.add.reduce([one.values for one in arms])
        finding = self._take(sums, sum(one.rows for one in arms), offset, rules)
        return [finding] if finding is not None else []

    def _take(self, sums: Floats, rows: int, offset: int, rules: DriftRules) -> Finding | None:
        if self.known is None:
            self._learn(sums, rows, rules)
            return None
        known = self.known
        if self.mmd is None:
            self.mmd = new_rff_mmd(len(sums))
        self.mmd.take(sums, rows)
        self.statistic = self.mmd.statistic(
            known.mean, variance=known.variance, spread=known.spread, reference_rows=known.rows
        )
        if self.statistic is None:
            return None
        if self.episode is not None:
            return self._wait(self.episode, self.statistic, rows, known, rules)
        if self.statistic > known.threshold:
            self.quiet_rows = 0
            self.episode = Episode(
                detector=DriftDetector.RFF_MMD,
                direction=DriftDirection.AWAY,
                first_offset=self.rested,
            )
            return self._finding(self.episode, known.threshold, begins=True)
        if self.statistic <= _AT_REST:
            self.rested = offset
        return None

    def readings(self, foreign_rows: int) -> list[DriftReading]:
        """How its detector stands.

        Args:
            foreign_rows: left out, as they were measured with another reference.
        """
        threshold = self.known.threshold if self.known else LEARNED_THRESHOLD.at(self.share)
        return [
            DriftReading(
                feature=DriftFeature.EMBEDDINGS,
                detector=DriftDetector.RFF_MMD,
                statistic=self.statistic,
                threshold=threshold / 2.0 if self.episode else threshold,
                drifting=self.episode is not None,
                learned=self.reference is None,
                foreign_rows=foreign_rows,
            )
        ]

    def _learn(self, sums: Floats, rows: int, rules: DriftRules) -> None:
        learning = self.learning
        if learning is None:
            learning = self.learning = _Learning(sums=[], counts=[])
        learning.take(sums, rows, rules.learn_rows)
        if learning.is_done(rules.learn_rows):
            self.known = learning.known(LEARNED_THRESHOLD.at(self.share))
            self.learning = None

    def _wait(
        self, episode: Episode, statistic: float, rows: int, known: _Known, rules: DriftRules
    ) -> Finding | None:
        quiet = known.threshold / 2.0
        self.quiet_rows = self.quiet_rows + rows if statistic <= quiet else 0
        if self.quiet_rows < rules.clear_rows:
            return None
        self.episode = None
        return self._finding(episode, quiet, begins=False)

    def _finding(self, episode: Episode, threshold: float, *, begins: bool) -> Finding:
        assert self.statistic is not None  # asked by the caller
        return episode.finding(
            DriftFeature.EMBEDDINGS, self.reference, self.statistic, threshold, begins=begins
        )


def new_embedding_watch(*, share: float, reference: DriftReference | None) -> EmbeddingWatch:
    """A watch that has seen nothing; without a reference it learns.

    Args:
        share: rows between two false alarms.
        reference: of the rules.
    """
    if reference is None:
        return EmbeddingWatch(share=share, reference=None)
    fourier = reference.fourier
    mean = fourier.means().astype(np.float64)
    known = _Known(
        mean=mean,
        # The features of a row have norm 1.
        variance=1.0 - float(mean @ mean),
        spread=fourier.spread,
        rows=reference.rows,
        threshold=fourier.threshold.at(share),
    )
    return EmbeddingWatch(share=share, reference=reference.id, known=known)
