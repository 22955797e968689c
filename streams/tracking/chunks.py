"""How many traces go into one call, by how long the last ones took."""

from __future__ import annotations

__all__ = ["ChunkSize"]


class ChunkSize:
    """Aims at a time a call: a stop and the other work wait for it, and a server has a time-out.

    Args:
        target_s: what a call should take.
        most: the most traces a call; MLflow links 100 to a run at once.
    """

    def __init__(self, target_s: float = 1.0, most: int = 100) -> None:
        self._target_s = target_s
        self._most = most
        self.traces = 10
        """How many the next call may have."""

    def took(self, traces: int, seconds: float) -> None:
        """Take note of a call that succeeded: the size follows the pace, at most doubling."""
        wanted = traces * self._target_s / max(seconds, 1e-6)
        self.traces = max(1, min(round(wanted), 2 * self.traces, self._most))

    def failed(self) -> None:
        """Take note of a call that failed: it may have been too much at once."""
        self.traces = max(1, self.traces // 2)
