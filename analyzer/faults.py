"""Fault injection for rehearsals (M70): a rollback that was never rehearsed does not work.

Nothing here acts unless a faults file is configured. The faults themselves are real: the time
passes, the exception is raised where a broken model would raise it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from analyzer.errors import EncoderError
from schemas.prompts import SemanticScores

__all__ = ["NO_FAULTS", "FaultFile", "Faults", "InjectedFault", "strike", "worsened"]

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.2
"""Between two looks at the file: soon enough for a rehearsal, and no system call a prompt."""
MAX_DELAY_MS = 60_000.0


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong at the moment."""

    deployment: Annotated[str, Meta(min_length=1)] = "semantic"
    """The deployment that is hit; no other is."""
    error_rate: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    """Share of batches that fail, with all their prompts."""
    delay_ms: Annotated[float, Meta(ge=0.0, le=MAX_DELAY_MS)] = 0.0
    """Added to each batch."""
    score_factor: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    """What the semantic scores are multiplied by: a model that has got worse."""


NO_FAULTS = Faults()

_chance = random.Random()  # noqa: S311  # no secret depends on it


class InjectedFault(EncoderError):
    """A failure that was asked for."""


class FaultFile:
    """The faults that a JSON file asks for, read again whenever it changes.

    A file that is missing, or cannot be understood, is no fault; the latter is reported once.

    Args:
        path: of the file; None injects nothing, ever.
        clock: seconds that only grow.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._next_check_s = float("-inf")
        self._seen: tuple[int, int] | None = None
        self._faults = NO_FAULTS

    def current(self, deployment: str) -> Faults:
        """The faults of a deployment now; :data:`NO_FAULTS` when it is not the one that is hit."""
        now_s = self._clock()
        if self._path is not None and now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_INTERVAL_S
            self._look(self._path)
        return self._faults if self._faults.deployment == deployment else NO_FAULTS

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            self._faults = msgspec.json.decode(path.read_bytes(), type=Faults)
            logger.warning("injecting faults from %s: %s", path, self._faults)
        except FileNotFoundError:
            self._seen, self._faults = None, NO_FAULTS
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._faults = NO_FAULTS
            logger.warning("faults file %s is ignored, and nothing injected: %s", path, error)


def strike(faults: Faults, chance: random.Random = _chance) -> None:
    """Suffer a delay or a failure, as often as the faults say; costs nothing without any.

    Raises:
        InjectedFault: as often as the error rate says.
    """
    if faults.delay_ms:
        time.sleep(faults.delay_ms / 1000)
    if faults.error_rate and chance.random() < faults.error_rate:
        raise InjectedFault(f"injected: error rate {faults.error_rate:g}")


def worsened(scores: SemanticScores, faults: Faults) -> SemanticScores:
    """The scores that a worse model would give."""
    factor = faults.score_factor
    if factor == 1.0:
        return scores
    return msgspec.structs.replace(
        scores,
        coherence=scores.coherence * factor,
        relevance=scores.relevance * factor,
        overall=scores.overall * factor,
    )
