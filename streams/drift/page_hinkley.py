"""Page-Hinkley against a reference: a lasting small shift adds up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from streams.drift.detector import Detector
from streams.drift.river_modules import RIVER_VERSION, RiverPageHinkley

__all__ = ["PageHinkley", "siegmund_threshold"]


class _ReferenceMean:
    """A mean that stays at the reference's, which is 0 for standardised numbers.

    River's own follows the stream: a slow drift takes it along, and is never seen.
    """

    n = 1.0

    def update(self, x: float) -> None:
        """Learn nothing."""

    def get(self) -> float:
        """The reference's mean."""
        return 0.0


class _AgainstReference(RiverPageHinkley):  # type: ignore[misc]  # River's classes are Any here
    def _reset(self) -> None:
        super()._reset()
        self._x_mean = _ReferenceMean()


class PageHinkley(Detector):
    """River's Page-Hinkley test on standardised numbers, its mean being the reference's.

    Args:
        tolerance: a lasting shift of less is no drift; in the unit of the numbers.
        threshold: of the statistic, the sum of what goes beyond the tolerance.
        mode: where to a shift is drift: ``up`` or ``both``.

    Source: Page, Continuous Inspection Schemes, 1954.

    >>> import random
    >>> rng = random.Random(7)
    >>> detector = PageHinkley(tolerance=0.5, threshold=12.0, mode="up")
    >>> stream = [rng.gauss(0.0, 1.0) for _ in range(1000)]
    >>> stream += [rng.gauss(1.5, 1.0) for _ in range(100)]
    >>> next(i for i, x in enumerate(stream) if detector.update(x))
    1012
    """

    def __init__(self, *, tolerance: float, threshold: float, mode: str) -> None:
        self._river = _AgainstReference(
            min_instances=1, delta=tolerance, threshold=threshold, alpha=1.0, mode=mode
        )
        self._both = mode == "both"
        self.up = 0.0
        """How far numbers have been above the tolerance since they last were not."""
        self.down = 0.0
        """The same below the tolerance; 0 where only shifts up are drift."""

    def update(self, value: float) -> bool:
        """See :class:`Detector`."""
        it = self._river
        it.update(value)
        self._stand()
        drifted: bool = it.drift_detected
        return drifted

    def _stand(self) -> None:
        it = self._river
        self.up = it._sum_increase - it._min_increase
        if self._both:
            self.down = it._max_decrease - it._sum_decrease

    @property
    def statistic(self) -> float:
        """What is held against the threshold."""
        return max(self.up, self.down)

    def numbers(self) -> list[Any]:
        """See :class:`Detector`."""
        it = self._river
        return [
            RIVER_VERSION,
            it.delta,
            it.threshold,
            it.mode,
            it._sum_increase,
            it._min_increase,
            it._sum_decrease,
            it._max_decrease,
            it.drift_detected,
        ]

    @classmethod
    def of(cls, numbers: Sequence[Any]) -> Self:
        """See :class:`Detector`."""
        cls.check_version(numbers[0])
        _, tolerance, threshold, mode, *sums, drifted = numbers
        made = cls(tolerance=tolerance, threshold=threshold, mode=mode)
        it = made._river
        it._sum_increase, it._min_increase, it._sum_decrease, it._max_decrease = sums
        it._drift_detected = drifted
        if math.isfinite(it._min_increase):
            made._stand()
        return made


def siegmund_threshold(average_run_length: float, tolerance: float) -> float:
    """The threshold of Page-Hinkley on independent standard normal numbers, for shifts up.

    Args:
        average_run_length: numbers between two false alarms.
        tolerance: of the detector.

    Source: Siegmund, Sequential Analysis, 1985, equation 2.57 with the correction 1.166 for the
    overshoot.

    >>> round(siegmund_threshold(10_000, 0.5), 2)
    7.35
    """
    bound = 1.0
    # A fixed point of 2 k^2 L = exp(2 k b) - 2 k b - 1; it contracts.
    for _ in range(100):
        bound = (
            math.log(2.0 * tolerance**2 * average_run_length + 2.0 * tolerance * bound + 1.0)
            / tolerance
            / 2.0
        )
    return max(bound - 1.166, 1.0)
