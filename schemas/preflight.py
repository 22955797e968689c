"""What is looked at before a rollout starts: the deployment checklist, as checks that run (M70)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["PreflightCheck", "PreflightResult"]


class PreflightCheck(StrEnum):
    """What `driftgate rollout preflight` looks at before a rollout starts (M70, M71)."""

    ALERTS = "alerts"
    """Every configured way to people takes a test alert."""
    POLICY = "policy"
    """It can be used, and its green is not what serves already."""
    REHEARSAL = "rehearsal"
    """A rollback of this green was rehearsed in shadow and confirmed, lately."""
    TOPICS = "topics"
    """All are there, as they must be."""
    VALIDATION = "validation"
    """A report of `driftgate validate` says that the enhancement helps."""
    WORKERS = "workers"
    """Analyzers are alive, and have the model that green needs."""


class PreflightResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a check has found."""

    check: PreflightCheck
    passed: bool
    found: Annotated[str, Meta(max_length=2000)]
    cure: Annotated[str, Meta(max_length=2000)] = ""
