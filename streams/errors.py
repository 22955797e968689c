"""The error base of the monitor."""

from __future__ import annotations

__all__ = ["RecoveryError", "StreamsError"]


class StreamsError(Exception):
    """Base of every error that this package raises."""


class RecoveryError(StreamsError):
    """State that cannot be restored; the message says what to do."""
