"""What all detectors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from streams.drift.river_modules import RIVER_VERSION
from streams.errors import RecoveryError

__all__ = ["Detector"]


class Detector(ABC):
    """Takes numbers one by one and says when they have changed; its whole state is numbers.

    State goes into checkpoints as numbers beside River's version, never as a pickle: reading a
    pickle runs what it says, and a checkpoint comes from a topic.
    """

    @abstractmethod
    def update(self, value: float) -> bool:
        """Take a number.

        Returns:
            Whether there is drift. A detector that has said so is at its end: take a new one.
        """

    @abstractmethod
    def numbers(self) -> list[Any]:
        """The state, as numbers and lists of them; :meth:`of` gives it back exactly."""

    @classmethod
    @abstractmethod
    def of(cls, numbers: Sequence[Any]) -> Self:
        """A detector from its state.

        Raises:
            RecoveryError: of another version of River; rebuild the state from the log.
            ValueError: no state of this detector.
        """

    @staticmethod
    def check_version(version: Any) -> None:
        """Refuse the state of another River, whose numbers may mean something else.

        Raises:
            RecoveryError: it is.
        """
        if version != RIVER_VERSION:
            raise RecoveryError(
                f"detectors of river {version}, this code has river {RIVER_VERSION}"
            )
