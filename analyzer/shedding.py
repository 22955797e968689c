"""Load shedding: while too many prompts wait, the semantic half is left out."""

from __future__ import annotations

__all__ = ["LoadShedder"]


class LoadShedder:
    """Says whether to leave the semantic half out.

    Args:
        max_lag_messages: prompts that may wait for this worker; 0 never sheds.
    """

    def __init__(self, max_lag_messages: int) -> None:
        self._max_lag = max_lag_messages
        self.shedding = False

    def update(self, lag_messages: int) -> bool:
        """Take the lag; whether to shed now.

        Shedding ends at half of the bound: a worker on the edge would otherwise change its mind
        with every batch.

        >>> shedder = LoadShedder(100)
        >>> [shedder.update(lag) for lag in (100, 101, 60, 50, 80)]
        [False, True, True, False, False]
        """
        bound = self._max_lag / 2 if self.shedding else self._max_lag
        self.shedding = self._max_lag > 0 and lag_messages > bound
        return self.shedding
