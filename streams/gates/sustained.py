"""How long something has lasted, in the time of the log."""

from __future__ import annotations

import msgspec

__all__ = ["SustainedTimer"]


class SustainedTimer(msgspec.Struct, kw_only=True):
    """Measures for how long every observation was a breach ("> 1 % for 5 minutes").

    A timer, not a test: it says nothing about chance. It counts from the first breaching
    observation to the last one, never to "now": silence is no breach. A healthy observation, or a
    silence longer than ``gap_ms``, ends the spell.

    >>> timer = SustainedTimer(required_ms=300_000, gap_ms=60_000)
    >>> for second in range(0, 900, 7):
    ...     timer.update(second * 1000, breaching=second >= 100)
    ...     if timer.satisfied:
    ...         break
    >>> second, timer.elapsed_ms
    (406, 301000)
    """

    required_ms: int
    """A spell of this length is sustained; 0 is so with its first breach."""
    gap_ms: int
    """The longest silence within a spell, in ms."""
    since_ms: int | None = None
    last_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse durations that cannot be."""
        if self.required_ms < 0 or self.gap_ms <= 0:
            raise ValueError(
                f"required_ms {self.required_ms} must not be negative, and gap_ms {self.gap_ms} "
                "must be positive"
            )

    def update(self, at_ms: int, *, breaching: bool) -> None:
        """Take an observation at a moment of log time, in ms.

        Raises:
            ValueError: the moment lies before the last one, or is no whole number.
        """
        if at_ms != int(at_ms):
            raise ValueError(f"at_ms {at_ms} is no whole number of milliseconds")
        if self.last_ms is not None and at_ms < self.last_ms:
            raise ValueError(f"at_ms {at_ms} lies before the last observation at {self.last_ms}")
        silent = self.last_ms is not None and at_ms - self.last_ms > self.gap_ms
        self.last_ms = int(at_ms)
        if not breaching:
            self.since_ms = None
        elif self.since_ms is None or silent:
            self.since_ms = int(at_ms)

    @property
    def elapsed_ms(self) -> int:
        """Length of the spell that the last observation belongs to, in ms."""
        if self.since_ms is None or self.last_ms is None:
            return 0
        return self.last_ms - self.since_ms

    @property
    def satisfied(self) -> bool:
        """Whether the breach has lasted long enough, as of the last observation."""
        return self.since_ms is not None and self.elapsed_ms >= self.required_ms
