"""What is observed of the analyzers: counted, not inferred, so there is no chance in it."""

from __future__ import annotations

import msgspec

__all__ = ["HealthEvidence"]


class HealthEvidence(msgspec.Struct, kw_only=True, tag="health"):
    """A number that all heartbeats since the stage began add up to, held against its limit.

    It takes no share of alpha: a crash that was counted has happened.

    >>> evidence = HealthEvidence(limit=2.0)
    >>> for crashes, beats in ((0.0, 10), (3.0, 20)):
    ...     evidence.observe(crashes, beats)
    >>> evidence.broken, evidence.samples
    (True, 20)
    """

    limit: float
    """The most that is allowed."""
    value: float | None = None
    samples: int = 0
    """Heartbeats that it rests on."""

    def observe(self, value: float, samples: int) -> None:
        """Take the newest number, and how many heartbeats it rests on."""
        self.value, self.samples = value, samples

    @property
    def broken(self) -> bool:
        """Whether it is beyond its limit now."""
        return self.value is not None and self.value > self.limit

    @property
    def control_samples(self) -> int:
        """None is compared: analyzers serve both arms."""
        return 0

    def clears(self, log_threshold: float) -> bool:  # noqa: ARG002 - the same for any threshold
        """Whether it is surely no breach."""
        return not self.broken
