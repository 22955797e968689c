"""Which records of the rollout topic are obeyed."""

from __future__ import annotations

import msgspec
import pytest

from analyzer.follower import RolloutFollower, initial_state
from schemas import cloudevents
from schemas.rollout import DeploymentKind, Phase
from schemas.settings import KafkaSettings
from tests.support.workers import rolling

GOOD = cloudevents.encode_json(rolling(5))


@pytest.fixture
def follower() -> RolloutFollower:
    return RolloutFollower(KafkaSettings(), "default")


def test_rules_serve_before_the_first_rollout() -> None:
    """The state that nothing has changed yet splits nothing, and its blue needs no model."""
    state = initial_state("default")
    assert (state.phase, state.revision, state.splits) == (Phase.IDLE, 0, False)
    assert state.blue.kind is DeploymentKind.RULES


def test_newest_record_is_obeyed(follower: RolloutFollower) -> None:
    """Each good record replaces the state, and says that it has changed."""
    follower._apply(b"default", GOOD)
    assert follower.state == rolling(5)
    assert follower.changed.is_set()
    follower._apply(b"default", cloudevents.encode_json(rolling(6, share=0.25)))
    assert (follower.state.revision, follower.state.share) == (6, 0.25)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"another", GOOD),
        (None, GOOD),
        (b"default", None),
        (b"default", b""),
        (b"default", b"\xff"),
        (b"default", b"{"),
        (b"default", b"[" * 50_000),
        (b"default", b'{"service": "default"}'),
        (b"default", GOOD.replace(b'"share":1.0', b'"share":1.5')),
        (b"default", cloudevents.encode_json(msgspec.structs.replace(rolling(9), service="x"))),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_any_other_record_is_passed_over(
    follower: RolloutFollower, key: bytes | None, value: bytes | None
) -> None:
    """Records of others and records that are none leave the state as it was."""
    follower._apply(b"default", cloudevents.encode_json(rolling(4)))
    follower.changed.clear()
    follower._apply(key, value)
    assert follower.state == rolling(4)
    assert not follower.changed.is_set()
