"""What can go wrong in the analyzer, and how it is said."""

from __future__ import annotations

from schemas.prompts import RejectionCode

__all__ = ["AnalyzerError", "EncoderError", "ModelError", "Rejection", "WorkerFencedError"]


class AnalyzerError(Exception):
    """Base of every error that this package raises."""


class ModelError(AnalyzerError):
    """A model that cannot be had or must not be used; the message names the cure."""


class EncoderError(AnalyzerError):
    """An encoder that failed on texts, though its model was loaded."""


class WorkerFencedError(AnalyzerError):
    """Another process runs under the same worker id."""


class Rejection(AnalyzerError):
    """A prompt that is not analysed.

    Args:
        code: why, for machines.
        reason: why, for people, with the numbers.
    """

    def __init__(self, code: RejectionCode, reason: str) -> None:
        super().__init__(f"{code.value}: {reason}")
        self.code = code
        self.reason = reason
