"""Prompts that somebody has labelled."""

from __future__ import annotations

import msgspec

__all__ = ["LabelledPrompts"]


class LabelledPrompts(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts with one kind of label."""

    texts: list[str]
    domains: list[str] | None = None
    ratings: list[list[float]] | None = None
    """For each prompt the rating of each of its raters, on any scale where more is better."""
