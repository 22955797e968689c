"""What can go wrong with a broker; every message says the cause and the cure."""

from __future__ import annotations

__all__ = [
    "BrokerError",
    "BrokerFetchError",
    "BrokerJavaError",
    "BrokerStartError",
    "BrokerUnreachableError",
]


class BrokerError(Exception):
    """Base of every error of this package."""


class BrokerFetchError(BrokerError):
    """A jar of the broker could not be had, or is not the one in the lock list."""


class BrokerJavaError(BrokerError):
    """No Java runtime that can run the broker."""


class BrokerStartError(BrokerError):
    """The broker did not start, or ended without being asked to."""


class BrokerUnreachableError(BrokerError):
    """No Kafka broker answers at an address."""
