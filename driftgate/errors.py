"""What the command line says when it cannot go on, and with which exit code."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["DriftgateError", "Exit", "SettingsError", "TopicMismatchError"]


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    """The work was done and its answer is no: a failed check, refused rows, no rollback."""
    USAGE = 2
    """A wrong option or argument."""
    SETTINGS = 3
    """A setting or policy that cannot be used."""
    BROKER = 4
    """The broker does not answer, or its topics are not as they must be."""
    FENCED = 5
    """Another process runs under the same id."""
    REFUSED = 6
    """The monitor refused an operator command."""
    NO_ANSWER = 7
    """The monitor did not answer an operator command in time."""


class DriftgateError(Exception):
    """Base of every error of this package; ends a command with its code."""

    code = Exit.FAILED

    def __init__(self, message: str, code: Exit | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SettingsError(DriftgateError):
    """A setting that cannot be used; the message names its variable and value."""

    code = Exit.SETTINGS


class TopicMismatchError(DriftgateError):
    """A topic that exists and is not as it must be."""

    code = Exit.BROKER
