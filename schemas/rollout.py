"""Deployments, and the state of a service's rollout that every analyzer obeys."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "BUCKETS",
    "HASH_VERSION",
    "NO_BUCKET",
    "Deployment",
    "DeploymentKind",
    "Mode",
    "Phase",
    "RolloutState",
    "Segment",
]

BUCKETS = 10_000
"""Buckets that users are spread over: a share is resolved to 0.01 %."""

NO_BUCKET = 65_535
"""In a measured row: its arm does not follow from a bucket (nothing is split, it was rejected, or a
segment has put it where it is)."""

HASH_VERSION = "murmur3-32/10000/v1"
"""Recorded with every assignment: unsigned murmur3 of ``salt:key``, ``(h * 10_000) >> 32``."""

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class DeploymentKind(StrEnum):
    """What a deployment computes."""

    RULES = "rules"
    SEMANTIC = "semantic"


class Deployment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named analyzer configuration."""

    name: Name
    kind: DeploymentKind
    semantic_weight: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the semantic score in the blend (M5).")
    ] = 0.3


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule on prompt attributes: the first match names the segment and may force an arm (M51)."""

    name: Name
    attribute: Annotated[str, Meta(min_length=1)]
    values: Annotated[list[str | bool | float], Meta(min_length=1)]
    force: (
        Annotated[
            str, Meta(pattern="^(control|candidate)$", description="Arm, whatever the share.")
        ]
        | None
    ) = None


class Mode(StrEnum):
    """What a policy is for."""

    ROLLOUT = "rollout"
    """Stage by stage to everybody."""
    EXPERIMENT = "experiment"
    """One stage, in which either side wins or neither does (M12, M49)."""


class Phase(StrEnum):
    """Where a rollout stands."""

    IDLE = "idle"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """What analyzers obey, on the compacted topic `driftgate.rollout`, keyed by service.

    ``revision`` rises by one with each change and is acknowledged in heartbeats.
    """

    service: str
    revision: Annotated[int, Meta(ge=0)]
    phase: Phase
    blue: Deployment
    green: Deployment | None = None
    rollout_id: str | None = None
    stage: Annotated[int, Meta(ge=0)] = 0
    share: Annotated[float, Meta(ge=0.0, le=1.0, description="Users served by green.")] = 0.0
    shadow_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Users for whom green is computed, not served.")
    ] = 0.0
    salt: str = ""
    hash_version: str = HASH_VERSION
    segments: list[Segment] = []
    only_segments: Annotated[
        list[str],
        Meta(description="Shares are of the users of these segments; empty: of everybody (M51)."),
    ] = []
    mode: Mode = Mode.ROLLOUT
    reason: str = ""
    at_ms: Annotated[int, Meta(ge=0, description="Log time of the decision.")] = 0

    @property
    def splits(self) -> bool:
        """Whether a candidate exists for which prompts are to be computed."""
        return self.green is not None and (self.share > 0 or self.shadow_share > 0)
