"""HDDM-W: whether a rate has risen, by exponentially weighted means and McDiarmid's bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from streams.drift.detector import Detector
from streams.drift.river_modules import HDDMW, RIVER_VERSION, SampleInfo

__all__ = ["HddmW"]

WEIGHT = 0.05
"""Of the newest number; River's own. The smaller, the smaller a rise that can be seen (with 0.05 by
7.7 points, of means of 64 bits and with one false alarm in 3 million; with 0.02 by 4.7), and the
longer it takes until anything can."""


class _Rises(HDDMW):  # type: ignore[misc]  # River's classes are Any here
    _incr_cutpoint: float

    def _update_incr_stats(self, x: float, confidence: float) -> None:
        """The same as River's, whose deep copy takes ten times as long as all the rest."""
        total = self._total
        upper = total.ewma + self._mcdiarmid_bound(total.ibc, confidence)
        if upper < self._incr_cutpoint:
            self._incr_cutpoint = upper
            self._s1_incr = _sample(total.ewma, total.is_init, total.ibc)
            self._s2_incr = SampleInfo(self.lambda_val)
        else:
            self._s2_incr.update(x)

    def _update_decr_stats(self, x: float, confidence: float) -> None:
        """Leave out what is only asked for where falls are watched too."""


class HddmW(Detector):
    """River's HDDM-W for rises, on means of as many bits each.

    McDiarmid's bound is on the sum of squares of what each bit can do. One of n bits in a mean can
    do 1/n, so the squares of a mean's bits add up to 1/n of those of a single bit, which is the
    same bound at the n-th root of the confidence.

    Args:
        confidence: chance of a false alarm at a number.
        bits: that each number is the mean of.

    Source: Frías-Blanco et al., Online and Non-Parametric Drift Detection Methods Based on
    Hoeffding's Bounds, 2015.

    >>> import random
    >>> rng = random.Random(7)
    >>> detector = HddmW(confidence=1e-6, bits=1)
    >>> stream = [rng.random() < 0.01 for _ in range(1000)]
    >>> stream += [rng.random() < 0.9 for _ in range(100)]
    >>> next(i for i, x in enumerate(stream) if detector.update(x))
    1027
    """

    def __init__(self, *, confidence: float, bits: int) -> None:
        self._confidence = confidence
        self._bits = bits
        root = confidence ** (1.0 / bits)
        self._river = _Rises(drift_confidence=root, warning_confidence=root, lambda_val=WEIGHT)

    def update(self, value: float) -> bool:
        """See :class:`Detector`."""
        self._river.update(value)
        drifted: bool = self._river.drift_detected
        return drifted

    @property
    def base(self) -> float:
        """The rate at its lowest."""
        lowest = self._river._s1_incr
        return float(lowest.ewma) if lowest.is_init else 0.0

    @property
    def statistic(self) -> float:
        """How far the rate is above its lowest."""
        since = self._river._s2_incr
        return float(since.ewma) - self.base if since.is_init else 0.0

    @property
    def threshold(self) -> float:
        """What the statistic is held against: it falls with the numbers since the lowest."""
        it = self._river
        sums = it._s1_incr.ibc + it._s2_incr.ibc
        return math.sqrt(sums * math.log(1.0 / it.drift_confidence) / 2.0)

    @property
    def at_rest(self) -> bool:
        """Whether the rate is at its lowest now."""
        return not self._river._s2_incr.is_init

    def numbers(self) -> list[Any]:
        """See :class:`Detector`."""
        it = self._river
        samples = [
            [each.ewma, each.is_init, each.ibc] for each in (it._total, it._s1_incr, it._s2_incr)
        ]
        cutpoint = it._incr_cutpoint
        return [RIVER_VERSION, self._confidence, self._bits, cutpoint, samples]

    @classmethod
    def of(cls, numbers: Sequence[Any]) -> Self:
        """See :class:`Detector`."""
        cls.check_version(numbers[0])
        _, confidence, bits, cutpoint, samples = numbers
        made = cls(confidence=confidence, bits=bits)
        it = made._river
        it._total, it._s1_incr, it._s2_incr = (_sample(*each) for each in samples)
        it._incr_cutpoint = cutpoint
        return made


def _sample(mean: float, started: bool, bound: float) -> Any:
    sample = SampleInfo(WEIGHT)
    if started:
        # The first number that a River mean takes is the mean.
        sample._ewma.update(mean)
    sample._is_init = started
    sample._ibc = bound
    return sample
