"""The error base of the monitor."""

from __future__ import annotations

__all__ = [
    "DeliveryError",
    "NotifySettingError",
    "RecoveryError",
    "SinkMissingError",
    "SinkRefusedError",
    "SinkUnavailableError",
    "StreamsError",
]


class StreamsError(Exception):
    """Base of every error that this package raises."""


class RecoveryError(StreamsError):
    """State that cannot be restored; the message says what to do."""


class DeliveryError(StreamsError):
    """An alert that a channel did not take; it may be tried again."""


class NotifySettingError(StreamsError):
    """A channel that cannot be used as it is set; the message holds no secret."""


class SinkUnavailableError(StreamsError):
    """MLflow is away, slow or out of order: the same may succeed later."""


class SinkRefusedError(StreamsError):
    """MLflow does not take this, and probably never will."""


class SinkMissingError(SinkRefusedError):
    """MLflow does not have what this is about."""
