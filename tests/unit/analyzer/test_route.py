"""Assignment: sticky, uniform, monotone in the share, independent between salts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.route import assign, bucket, is_split
from schemas.prompts import Arm
from schemas.rollout import BUCKETS, Deployment, DeploymentKind, Phase, RolloutState, Segment

BLUE = Deployment(name="baseline", kind=DeploymentKind.RULES)
GREEN = Deployment(name="semantic", kind=DeploymentKind.SEMANTIC)
KEYS = [f"user-{number}" for number in range(20_000)]
EMPLOYEES = Segment(name="employees", attribute="plan", values=["staff"], force="candidate")
SPARED = Segment(name="spared", attribute="vip", values=[True], force="control")


def state(**changes: Any) -> RolloutState:
    """A rollout at 25 %, with changes."""
    base = RolloutState(
        service="default",
        revision=7,
        phase=Phase.PROGRESSING,
        blue=BLUE,
        green=GREEN,
        rollout_id="r1",
        share=0.25,
        salt="r1",
    )
    return msgspec.structs.replace(base, **changes)


def test_buckets_are_uniform() -> None:
    """Chi-square over 100 cells of 20,000 users stays below the 99.9 % quantile (148.2)."""
    cells = Counter(bucket("salt", key) // 100 for key in KEYS)
    expected = len(KEYS) / 100
    assert sum((cells[cell] - expected) ** 2 / expected for cell in range(100)) < 148.2


def test_buckets_of_two_salts_are_independent() -> None:
    """Of the users in one rollout's first half, half are in another's."""
    first = {key for key in KEYS if bucket("a", key) < BUCKETS // 2}
    both = sum(bucket("b", key) < BUCKETS // 2 for key in first)
    # Four standard deviations of a fair coin.
    assert abs(both / len(first) - 0.5) < 4 * 0.5 / len(first) ** 0.5


def test_a_bucket_is_what_the_contract_says() -> None:
    """Fixed values: other languages must compute the same."""
    assert [bucket("", "user-1"), bucket("salt", "user-1"), bucket("a", "b")] == [7760, 661, 6338]


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_bucket_is_in_range_for_any_key(salt: str, key: str) -> None:
    """From 0 to 9,999."""
    assert 0 <= bucket(salt, key) < BUCKETS


@given(st.text(min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_share_only_adds_users(key: str, one: float, other: float) -> None:
    """Who has green keeps it when the share is raised."""
    low, high = sorted((one, other))
    before = assign(state(share=low, shadow_share=0.0), key, {})
    after = assign(state(share=high, shadow_share=0.0), key, {})
    if before.arm is Arm.CANDIDATE:
        assert after.arm is Arm.CANDIDATE
    assert before.bucket == after.bucket


@pytest.mark.parametrize("share", [0.0001, 0.25, 0.29, 0.5, 1.0])
def test_the_share_is_exact_in_buckets(share: float) -> None:
    """Each bucket below share x 10,000 is green, and no other."""
    for key in KEYS[:2_000]:
        found = assign(state(share=share), key, {})
        assert (found.arm is Arm.CANDIDATE) == (found.bucket < round(share * BUCKETS))
        assert found.deployment == ("semantic" if found.arm is Arm.CANDIDATE else "baseline")


def test_in_shadow_blue_is_served_and_green_computed() -> None:
    """At share 0, users below the shadow share are measured in the candidate arm."""
    arms = Counter()
    for key in KEYS[:2_000]:
        found = assign(state(share=0.0, shadow_share=0.25), key, {})
        arms[found.arm] += 1
        assert found.deployment == "baseline"
        assert found.shadow_deployment == ("semantic" if found.arm is Arm.CANDIDATE else None)
    assert 0.2 < arms[Arm.CANDIDATE] / 2_000 < 0.3


def test_a_shadow_share_means_nothing_once_green_serves() -> None:
    """Users who are served green are not compared with ones who are not."""
    for key in KEYS[:500]:
        found = assign(state(share=0.1, shadow_share=0.9), key, {})
        assert found.shadow_deployment is None
        assert (found.arm is Arm.CANDIDATE) == (found.bucket < 1_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": Phase.IDLE, "green": None, "rollout_id": None},
        {"phase": Phase.ROLLED_BACK, "share": 0.0},
        {"phase": Phase.ROLLED_BACK, "share": 1.0},
        {"phase": Phase.PROMOTED, "green": None, "share": 1.0},
        {"green": None, "share": 1.0},
        {"share": 0.0, "shadow_share": 0.0},
        {"hash_version": "sha1/100/v0", "share": 1.0},
    ],
)
def test_without_a_split_everybody_is_control_on_blue(changes: dict[str, Any]) -> None:
    """Not even a segment that forces the candidate changes that."""
    for key in KEYS[:50]:
        found = assign(state(segments=[EMPLOYEES], **changes), key, {"plan": "staff"})
        assert (found.arm, found.deployment) == (Arm.CONTROL, "baseline")
        assert (found.shadow_deployment, found.segment) == (None, "employees")


def test_the_first_segment_that_matches_names_and_forces() -> None:
    """Order decides; True is not 1.0; a prompt without attributes is in no segment."""
    both = state(segments=[SPARED, EMPLOYEES], share=0.5)
    for key in KEYS[:50]:
        assert assign(both, key, {"vip": True, "plan": "staff"}).arm is Arm.CONTROL
        forced = assign(both, key, {"plan": "staff", "vip": 1.0})
        assert (forced.arm, forced.deployment) == (Arm.CANDIDATE, "semantic")
        assert forced.segment == "employees"
        assert assign(both, key, {}).segment == "rest"


def test_a_forced_candidate_is_in_shadow_while_nobody_is_served() -> None:
    """Green serves nobody before its stage, not even those who are forced to it."""
    found = assign(
        state(share=0.0, shadow_share=0.01, segments=[EMPLOYEES]), "u", {"plan": "staff"}
    )
    assert (found.deployment, found.shadow_deployment) == ("baseline", "semantic")
    assert found.arm is Arm.CANDIDATE


def test_an_assignment_says_how_it_was_made() -> None:
    """Everything to compute it again is recorded."""
    found = assign(state(), "user-1", {})
    assert (found.rollout_id, found.rollout_revision, found.salt) == ("r1", 7, "r1")
    assert (found.bucket, found.hash_version) == (bucket("r1", "user-1"), "murmur3-32/10000/v1")


def test_a_pause_keeps_everybody_where_they_are() -> None:
    """A paused rollout splits as before."""
    for key in KEYS[:200]:
        assert assign(state(phase=Phase.PAUSED), key, {}) == assign(state(), key, {})


def test_a_stage_can_be_limited_to_segments() -> None:
    """The share is of their users; others are control, but for those that are forced (M51)."""
    staff = Segment(name="staff", attribute="plan", values=["staff"])
    limited = state(segments=[staff, EMPLOYEES], only_segments=["staff"], share=0.5)
    everybody = state(segments=[staff, EMPLOYEES], share=0.5)
    for key in KEYS[:200]:
        inside, outside = {"plan": "staff"}, {"plan": "free"}
        assert assign(limited, key, inside) == assign(everybody, key, inside)
        found = assign(limited, key, outside)
        assert (found.arm, found.deployment) == (Arm.CONTROL, "baseline")
        assert found.shadow_deployment is None
        assert is_split(limited, "staff")
        assert not is_split(limited, "rest")
    forced = state(segments=[staff, SPARED], only_segments=["staff"], share=0.5)
    assert not is_split(forced, SPARED.name)
