"""Rows of some segments of users among those of a batch."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

from streams.feedback import FeedbackSamples
from streams.samples import Samples

__all__ = ["BySegment"]

AnySamples = TypeVar("AnySamples", Samples, FeedbackSamples)


class BySegment(Generic[AnySamples]):
    """The rows of a batch, for whoever asks for those of some segments; each subset is made once.

    Args:
        samples: all rows.
        names: that the rows' segment column indexes.
    """

    def __init__(self, samples: AnySamples, names: list[str]) -> None:
        self._names = names
        self._subsets: dict[tuple[str, ...], AnySamples] = {(): samples}

    def of(self, segments: list[str]) -> AnySamples:
        """The rows of the users of these segments; of everybody when there is none."""
        key = tuple(segments)
        if key not in self._subsets:
            everybody = self._subsets[()]
            wanted = np.array([name in segments for name in self._names])
            self._subsets[key] = everybody.where(wanted[everybody.rows.segment])
        return self._subsets[key]
