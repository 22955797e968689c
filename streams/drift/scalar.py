"""Watches a number of each row: Page-Hinkley and ADWIN on its blocks, against the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from schemas.drift import (
    DriftDetector,
    DriftDirection,
    DriftFeature,
    DriftReading,
    DriftReference,
    DriftRules,
)
from streams.drift.adwin import CLOCK, Adwin
from streams.drift.episode import Episode, Finding
from streams.drift.learning import Learning, tolerance_of
from streams.drift.page_hinkley import PageHinkley, siegmund_threshold

__all__ = ["CLIP", "SIGNS", "SMALLEST_SD", "ScalarWatch", "new_scalar_watch"]

SIGNS: dict[DriftFeature, int] = {
    DriftFeature.RELEVANCE: -1,
    DriftFeature.COHERENCE: -1,
    DriftFeature.SCORE_GAIN: -1,
    DriftFeature.CENTROID_DISTANCE: 1,
    DriftFeature.PROMPT_LENGTH: 0,
    DriftFeature.LATENCY: 1,
}
"""Where to drift is: -1 down, 1 up, 0 both. What gets better is no drift."""
SMALLEST_SD: dict[DriftFeature, float] = {
    DriftFeature.RELEVANCE: 0.005,
    DriftFeature.COHERENCE: 0.005,
    DriftFeature.SCORE_GAIN: 0.002,
    DriftFeature.CENTROID_DISTANCE: 0.005,
    DriftFeature.PROMPT_LENGTH: 0.02,
    DriftFeature.LATENCY: 0.05,
}
"""A feature that hardly varies must not make drift of a difference that nobody would mind; latency
and length are logarithms, so theirs are shares."""
CLIP = 10.0
"""Standard deviations of a block. One row, however odd, is then never drift by itself: thresholds
are above. A block that is all new counts fully."""
_DETECTORS = (DriftDetector.PAGE_HINKLEY, DriftDetector.ADWIN)
_ERRORS = 1.5
"""Standard errors by which learned means may be off without more false alarms than promised."""


class ScalarWatch(msgspec.Struct, kw_only=True, tag="scalar"):
    """Of one feature; changed in place."""

    feature: DriftFeature
    size: int
    """Rows of a block."""
    share: float
    """Rows between two false alarms, of each of its detectors."""
    reference: str | None
    mean: float = 0.0
    block_sd: float = 0.0
    tolerance: float = 0.0
    """In standard deviations of a row."""
    threshold: float = 0.0
    """Of Page-Hinkley."""
    learning: Learning | None = None
    page_hinkley: PageHinkley | None = None
    adwin: Adwin | None = None
    rested: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    """Where in the log nothing spoke for a shift up, and down."""
    episode: Episode | None = None

    def take(
        self, means: Sequence[float], rows: int, offset: int, rules: DriftRules
    ) -> list[Finding]:
        """Take blocks.

        Args:
            means: of the blocks; one that is not finite is left out.
            rows: that each stands for.
            offset: of the record in the log.
            rules: in force.
        """
        found = []
        sign = SIGNS[self.feature] or 1
        for mean in means:
            if mean - mean != 0.0:
                continue
            if self.learning is not None:
                self._learn(self.learning, mean, rows, rules)
                continue
            z = sign * (mean - self.mean) / self.block_sd
            z = min(max(z, -CLIP), CLIP)
            finding = self._watch(z, offset) if self.episode is None else self._wait(z, rows, rules)
            if finding is not None:
                found.append(finding)
        return found

    def readings(self) -> list[DriftReading]:
        """How its two detectors stand."""
        if self.episode is not None:
            now, quiet = self.episode.mean if self.episode.blocks else None, self.tolerance / 2.0
            stand = ((now, quiet), (now, quiet))
        else:
            rise, shift = None, None
            if self.page_hinkley is not None:
                rise = self.page_hinkley.statistic
            if self.adwin is not None and self.adwin.width:
                shift = self._in_rows(self.adwin.mean)
                shift = shift if SIGNS[self.feature] else abs(shift)
            stand = ((rise, self.threshold), (shift, self.tolerance))
        return [
            DriftReading(
                feature=self.feature,
                detector=detector,
                statistic=statistic,
                threshold=threshold,
                drifting=self.episode is not None,
                learned=self.reference is None,
            )
            for detector, (statistic, threshold) in zip(_DETECTORS, stand, strict=True)
        ]

    def _learn(self, learning: Learning, mean: float, rows: int, rules: DriftRules) -> None:
        learning.take(mean, rows)
        if not learning.is_done(rules.learn_rows):
            return
        smallest = SMALLEST_SD[self.feature] / math.sqrt(self.size)
        self.mean, self.block_sd = learning.mean, max(learning.block_sd, smallest)
        error = 1.0 / math.sqrt(learning.blocks * self.size)
        self.tolerance = tolerance_of(error)
        sides = 1 if SIGNS[self.feature] else 2
        self.threshold = siegmund_threshold(
            self.share / self.size * sides,
            (self.tolerance - _ERRORS * error) * math.sqrt(self.size),
        )
        self.learning = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Take fresh detectors."""
        self.page_hinkley = PageHinkley(
            tolerance=self.tolerance * math.sqrt(self.size),
            threshold=self.threshold,
            mode="up" if SIGNS[self.feature] else "both",
        )
        self.adwin = Adwin(delta=min(CLOCK * self.size / self.share, 0.5))

    def _in_rows(self, z: float) -> float:
        """From standard deviations of a block to those of a row."""
        return z / math.sqrt(self.size)

    def _watch(self, z: float, offset: int) -> Finding | None:
        ph, adwin = self.page_hinkley, self.adwin
        assert ph is not None  # made when the reference is known
        assert adwin is not None  # with it
        drifted, changed = ph.update(z), adwin.update(z)
        if drifted:
            side = 1 if ph.up >= ph.down else -1
            return self._begin(DriftDetector.PAGE_HINKLEY, side, ph.statistic, self.threshold)
        if changed:
            # It says that there is a change, not that it is one for the worse.
            shift = self._in_rows(adwin.mean)
            side = 1 if SIGNS[self.feature] or shift > 0.0 else -1
            if side * shift > self.tolerance:
                return self._begin(DriftDetector.ADWIN, side, side * shift, self.tolerance)
        if ph.up == 0.0:
            self.rested[0] = offset
        if ph.down == 0.0:
            self.rested[1] = offset
        return None

    def _begin(
        self, detector: DriftDetector, side: int, statistic: float, threshold: float
    ) -> Finding:
        upwards = side * (SIGNS[self.feature] or 1) > 0
        direction = DriftDirection.UP if upwards else DriftDirection.DOWN
        first = self.rested[0 if side > 0 else 1]
        self.episode = Episode(detector=detector, direction=direction, first_offset=first)
        self.page_hinkley = self.adwin = None
        return self._finding(self.episode, statistic, threshold, begins=True)

    def _wait(self, z: float, rows: int, rules: DriftRules) -> Finding | None:
        episode = self.episode
        assert episode is not None  # asked by the caller
        upwards = (SIGNS[self.feature] or 1) > 0
        same = upwards == (episode.direction is DriftDirection.UP)
        episode.take(self._in_rows(z if same else -z), rows)
        quiet = self.tolerance / 2.0
        if not episode.is_over(quiet, rules.clear_rows):
            return None
        self.episode = None
        self.begin_anew()
        return self._finding(episode, episode.mean, quiet, begins=False)

    def _finding(
        self, episode: Episode, statistic: float, threshold: float, *, begins: bool
    ) -> Finding:
        return episode.finding(self.feature, self.reference, statistic, threshold, begins=begins)


def new_scalar_watch(
    feature: DriftFeature, *, size: int, share: float, reference: DriftReference | None
) -> ScalarWatch:
    """A watch that has seen nothing; it learns what the reference does not say.

    Args:
        feature: a number of each row.
        size: rows of a block.
        share: rows between two false alarms, of each of its detectors.
        reference: of the rules.
    """
    known = reference.feature(feature) if reference is not None else None
    if reference is None or known is None:
        return ScalarWatch(
            feature=feature, size=size, share=share, reference=None, learning=Learning()
        )
    sd = max(known.sd, SMALLEST_SD[feature])
    watch = ScalarWatch(
        feature=feature,
        size=size,
        share=share,
        reference=reference.id,
        mean=known.mean,
        block_sd=sd / math.sqrt(size),
        tolerance=known.tolerance,
        threshold=max(known.page_hinkley.at(share), CLIP + 1.0),
    )
    watch.begin_anew()
    return watch
