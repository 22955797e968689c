"""The error base of the monitor."""

from __future__ import annotations

__all__ = ["DeliveryError", "NotifySettingError", "RecoveryError", "StreamsError"]


class StreamsError(Exception):
    """Base of every error that this package raises."""


class RecoveryError(StreamsError):
    """State that cannot be restored; the message says what to do."""


class DeliveryError(StreamsError):
    """An alert that a channel did not take; it may be tried again."""


class NotifySettingError(StreamsError):
    """A channel that cannot be used as it is set; the message holds no secret."""
