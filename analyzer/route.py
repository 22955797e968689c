"""Which arm and deployment a prompt gets, from the rollout's state and its key alone (M17, M47).

The same answer in every worker, at every time, and in every other program that knows the state.
"""

from __future__ import annotations

from collections.abc import Mapping

import mmh3

from schemas.prompts import Arm, Assignment
from schemas.rollout import BUCKETS, HASH_VERSION, Phase, RolloutState, Segment

__all__ = ["NO_SEGMENT", "assign", "bucket", "is_split"]

_SPLITTING = frozenset({Phase.PROGRESSING, Phase.PAUSED})
NO_SEGMENT = "rest"
"""The segment of prompts that no segment of the rollout matches."""
_REST = Segment(name=NO_SEGMENT, attribute="-", values=[True])

Attributes = Mapping[str, str | bool | float]


def bucket(salt: str, key: str) -> int:
    """The bucket of a key, uniform in [0, 10,000).

    Args:
        salt: the rollout's; another salt gives buckets that are independent of these.
        key: what assignment sticks to.

    Source: unsigned MurmurHash3 x86 32 of the UTF-8 bytes of ``salt:key``, scaled by
    multiplication (Lemire, Fast Random Integer Generation in an Interval, 2019).

    >>> bucket("", "user-1"), bucket("salt", "user-1")
    (7760, 661)
    """
    return (mmh3.hash(f"{salt}:{key}", signed=False) * BUCKETS) >> 32


def assign(state: RolloutState, key: str, attributes: Attributes) -> Assignment:
    """The assignment of a prompt.

    The candidate's buckets are the lowest, so that a higher share only adds users. While the share
    is 0, users below ``shadow_share`` are in the candidate arm: green is computed for them, and
    blue is served. A segment's ``force`` overrides the share, never the state: a forced candidate
    is computed in shadow while the share is 0, and without a green that is being split (idle,
    promoted, rolled back) every prompt is control, on blue. So is it under a hash version that
    this code does not know: a bucket that others compute differently would not be sticky. While
    the state names ``only_segments``, the share is of their users, and all others are control,
    but for those that a segment forces.

    Args:
        state: the rollout's.
        key: what assignment sticks to: the user, else the record key, else the prompt.
        attributes: of the prompt; the first segment that matches one names the segment.
    """
    place = bucket(state.salt, key)
    segment = next((each for each in state.segments if _matches(each, attributes)), _REST)
    green = state.green if _splits(state) else None
    share = state.share if state.share > 0 else state.shadow_share
    # Rounded, because 0.29 * 10,000 is 2,899.9999999999995.
    candidate = place < round(share * BUCKETS) and _is_in(state, segment.name)
    if segment.force is not None:
        candidate = segment.force == Arm.CANDIDATE
    served, shadow = state.blue.name, None
    if green is None:
        candidate = False
    elif candidate and state.share > 0:
        served = green.name
    elif candidate:
        shadow = green.name
    return Assignment(
        arm=Arm.CANDIDATE if candidate else Arm.CONTROL,
        deployment=served,
        shadow_deployment=shadow,
        rollout_id=state.rollout_id,
        rollout_revision=state.revision,
        bucket=place,
        hash_version=HASH_VERSION,
        salt=state.salt,
        segment=segment.name,
    )


def is_split(state: RolloutState, segment: str) -> bool:
    """Whether the arm of a segment's prompts follows from their buckets alone.

    Not where nothing is split, where a segment forces an arm, and outside ``only_segments``.
    """
    forced = any(each.force is not None for each in state.segments if each.name == segment)
    return _splits(state) and _is_in(state, segment) and not forced


def _splits(state: RolloutState) -> bool:
    return state.phase in _SPLITTING and state.splits and state.hash_version == HASH_VERSION


def _is_in(state: RolloutState, segment: str) -> bool:
    return not state.only_segments or segment in state.only_segments


def _matches(segment: Segment, attributes: Attributes) -> bool:
    value = attributes.get(segment.attribute)
    # Python's True equals 1.0; a segment's does not.
    return value is not None and any(
        value == each and isinstance(value, bool) == isinstance(each, bool)
        for each in segment.values
    )
