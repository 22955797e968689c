"""The error base of the contract package."""

from __future__ import annotations

__all__ = ["DecodeError", "DriftReferenceError", "PolicyError", "SchemaError"]


class SchemaError(Exception):
    """Base of every error that this package raises."""


class DecodeError(SchemaError):
    """Bytes that are not a valid event; the message says where and why."""


class PolicyError(SchemaError):
    """A policy that cannot be used; the message names the file, the key and the reason."""


class DriftReferenceError(SchemaError):
    """A drift reference that cannot be used; the message names the file, the reason, the cure."""
