"""The error base of the monitor."""

from __future__ import annotations

__all__ = [
    "BrokerAwayError",
    "CommandRefusedError",
    "CommandUnansweredError",
    "DeliveryError",
    "ListenError",
    "NotifySettingError",
    "RecoveryError",
    "SinkMissingError",
    "SinkRefusedError",
    "SinkUnavailableError",
    "StoreError",
    "StreamsError",
    "TokenFileError",
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


class ListenError(StreamsError):
    """An address that cannot be listened on."""


class BrokerAwayError(StreamsError):
    """No broker answers, or its topics are not as they must be; it may be tried again."""


class TokenFileError(StreamsError):
    """The file of tokens cannot be read or written; the message says what to do."""


class StoreError(StreamsError):
    """The console's database cannot be used; the message says what to do."""


class CommandRefusedError(StreamsError):
    """The monitor refused an operator's command, and says why."""


class CommandUnansweredError(StreamsError):
    """The monitor did not answer an operator's command in time, or the broker is away."""
