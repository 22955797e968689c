"""ADWIN: a window that grows while nothing changes, and drops its older part when it has."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Self

from streams.drift.detector import Detector
from streams.drift.river_modules import ADWIN, RIVER_VERSION

__all__ = ["Adwin"]

CLOCK = 2
"""Numbers between two looks: a look costs more than a number, and more of them find no more."""
_MAX_BUCKETS = 5
"""River's own."""
_MIN_WINDOW = 1
"""The bound is that of the paper; with River's 5 a change is not seen before five numbers of it."""
_GRACE = 10
"""River's own: so many numbers come before the first look."""

_FIXED = struct.Struct("<diQ2d4d4i")
_COUNT = struct.Struct("<Q")
_BUCKET = struct.Struct("<2Q")
_ARGUMENTS = struct.Struct("<diQ2i")
"""How River writes an ADWIN down: its settings, four sums, four counts, the buckets (room, entries,
then totals and variances, each after its length), and what it was constructed with."""


class Adwin(Detector):
    """River's ADWIN.

    It looks both ways, and for changes only: whether a change is drift is for who asks, by
    :attr:`mean`.

    Args:
        delta: chance of a false alarm at a look.

    Source: Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, 2007.

    >>> import random
    >>> rng = random.Random(7)
    >>> detector = Adwin(delta=1e-4)
    >>> stream = [rng.gauss(0.0, 1.0) for _ in range(1000)]
    >>> stream += [rng.gauss(1.5, 1.0) for _ in range(100)]
    >>> next(i for i, x in enumerate(stream) if detector.update(x))
    1025
    """

    def __init__(self, *, delta: float) -> None:
        self._delta = delta
        self._river = ADWIN(
            delta=delta,
            clock=CLOCK,
            max_buckets=_MAX_BUCKETS,
            min_window_length=_MIN_WINDOW,
            grace_period=_GRACE,
        )

    def update(self, value: float) -> bool:
        """See :class:`Detector`; but this one goes on, with what it has kept of its window."""
        # Not through River's own class, which forgets the window after a change.
        changed: bool = self._river._helper.update(value)
        return changed

    @property
    def mean(self) -> float:
        """Of the numbers in the window: since the last change."""
        mean: float = self._river.estimation
        return mean

    @property
    def width(self) -> int:
        """How many numbers are in the window."""
        return int(self._river.width)

    def numbers(self) -> list[Any]:
        """See :class:`Detector`."""
        data: bytes = self._river._helper.__getstate__()
        delta, _, _, _, _, *sums_and_counts = _FIXED.unpack_from(data)
        at = _FIXED.size
        (buckets,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        found = []
        for _ in range(buckets):
            _, entries = _BUCKET.unpack_from(data, at)
            at += _BUCKET.size
            columns = []
            for _ in range(2):
                (room,) = _COUNT.unpack_from(data, at)
                values = struct.unpack_from(f"<{room}d", data, at + _COUNT.size)
                at += _COUNT.size + 8 * room
                columns.append(list(values[:entries]))
            found.append(columns)
        return [RIVER_VERSION, delta, sums_and_counts, found]

    @classmethod
    def of(cls, numbers: Sequence[Any]) -> Self:
        """See :class:`Detector`."""
        cls.check_version(numbers[0])
        _, delta, sums_and_counts, buckets = numbers
        made = cls(delta=delta)
        room = _MAX_BUCKETS + 1
        parts = [
            _FIXED.pack(delta, CLOCK, _MAX_BUCKETS, _MIN_WINDOW, _GRACE, *sums_and_counts),
            _COUNT.pack(len(buckets)),
        ]
        for columns in buckets:
            entries = len(columns[0])
            if entries > room or len(columns[1]) != entries:
                raise ValueError(f"an ADWIN bucket of {entries} entries, {room} are the most")
            parts.append(_BUCKET.pack(_MAX_BUCKETS, entries))
            for values in columns:
                filled = [*values, *[0.0] * (room - entries)]
                parts += [_COUNT.pack(room), struct.pack(f"<{room}d", *filled)]
        parts.append(_ARGUMENTS.pack(delta, CLOCK, _MAX_BUCKETS, _MIN_WINDOW, _GRACE))
        if not buckets:
            raise ValueError("an ADWIN without buckets")
        made._river._helper.__setstate__(b"".join(parts))
        return made
