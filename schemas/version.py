"""The version of the code, recorded in every decision."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"
