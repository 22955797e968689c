"""The OpenFeature provider gives the router's answers, with the reasons of the specification."""

from __future__ import annotations

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from analyzer.openfeature_provider import RolloutProvider
from analyzer.route import assign
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState, Segment

BLUE = Deployment(name="baseline", kind=DeploymentKind.RULES)
GREEN = Deployment(name="semantic", kind=DeploymentKind.SEMANTIC)
STAFF = Segment(name="staff", attribute="staff", values=[True], force="candidate")


def split(share: float, **changes: object) -> RolloutState:
    """A rollout in progress."""
    fields = {
        "service": "s", "revision": 3, "phase": Phase.PROGRESSING, "blue": BLUE, "green": GREEN,
        "rollout_id": "r", "share": share, "salt": "r", "segments": [STAFF], **changes,
    }  # fmt: skip
    return RolloutState(**fields)  # type: ignore[arg-type]  # checked by the struct's users below


def client(state: RolloutState, *, stale: bool = False) -> OpenFeatureClient:
    """A client of a provider on a fixed state."""
    api.set_provider(RolloutProvider(lambda: state, lambda: stale), "test")
    return api.get_client("test")


def test_the_answer_is_the_routers() -> None:
    """Every user gets from the flag the deployment that the worker would serve (M9, M47)."""
    state = split(0.25)
    flags = client(state)
    seen = set()
    for number in range(500):
        user = f"user-{number}"
        details = flags.get_string_details("deployment", "none", EvaluationContext(user))
        expected = assign(state, user, {})
        assert details.value == expected.deployment
        assert details.variant == expected.arm.value
        assert details.reason == Reason.SPLIT
        assert details.flag_metadata["bucket"] == expected.bucket
        semantic = flags.get_boolean_value("semantic", False, EvaluationContext(user))
        assert semantic == (details.value == "semantic")
        seen.add(details.value)
    assert seen == {"baseline", "semantic"}


def test_a_forced_segment_is_a_targeting_match() -> None:
    """A segment that forces an arm is named, and the reason says that it matched (M51)."""
    details = client(split(0.0001)).get_string_details(
        "deployment", "none", EvaluationContext("anybody", {"staff": True})
    )
    assert (details.value, details.reason) == ("semantic", Reason.TARGETING_MATCH)
    assert details.flag_metadata["segment"] == "staff"


def test_without_a_split_the_flag_is_disabled() -> None:
    """After a rollback everybody is on blue, and the reason is DISABLED (M50)."""
    state = split(0.0, phase=Phase.ROLLED_BACK, green=None)
    details = client(state).get_string_details("deployment", "none", EvaluationContext("u"))
    assert (details.value, details.variant, details.reason) == (
        "baseline", "control", Reason.DISABLED,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("share", "attributes", "reason"),
    [
        (0.5, {"plan": "pro"}, Reason.SPLIT),
        (1.0, {"plan": "pro"}, Reason.TARGETING_MATCH),
        (1.0, {}, Reason.DISABLED),
        (0.5, {"staff": True}, Reason.TARGETING_MATCH),
    ],
)
def test_a_stage_of_a_segment_says_why(
    share: float, attributes: dict[str, object], reason: Reason
) -> None:
    """Users of the segment are split or matched; for all others there is no flag yet (M51)."""
    pro = Segment(name="pro", attribute="plan", values=["pro"])
    state = split(share, segments=[STAFF, pro], only_segments=["pro"])
    details = client(state).get_string_details(
        "deployment", "none", EvaluationContext("u", attributes)
    )
    assert details.reason == reason


def test_shadow_serves_blue() -> None:
    """In shadow the flag says what is served, and the metadata what is computed beside it."""
    state = split(0.0, shadow_share=1.0)
    details = client(state).get_string_details("deployment", "none", EvaluationContext("u"))
    assert details.value == "baseline"
    assert details.flag_metadata["shadow_deployment"] == "semantic"


def test_a_state_that_may_be_old_is_stale() -> None:
    """An answer from a state that may be behind says STALE."""
    details = client(split(0.5), stale=True).get_string_details(
        "deployment", "none", EvaluationContext("u")
    )
    assert details.reason == Reason.STALE


@pytest.mark.parametrize(
    ("flag", "context", "code"),
    [
        ("nonsense", EvaluationContext("u"), ErrorCode.FLAG_NOT_FOUND),
        ("semantic", EvaluationContext("u"), ErrorCode.TYPE_MISMATCH),
        ("deployment", EvaluationContext(), ErrorCode.TARGETING_KEY_MISSING),
    ],
)
def test_a_question_without_an_answer_gives_the_default(
    flag: str, context: EvaluationContext, code: ErrorCode
) -> None:
    """An unknown flag, a wrong type or no user: the caller's default, with the error's code."""
    details = client(split(0.5)).get_string_details(flag, "mine", context)
    assert (details.value, details.error_code) == ("mine", code)


def test_numbers_are_no_flags_of_ours() -> None:
    """A flag of a type that we have none of is an error with its code, not an exception."""
    flags = client(split(0.5))
    context = EvaluationContext("u")
    assert flags.get_integer_details("deployment", 1, context).error_code == (
        ErrorCode.TYPE_MISMATCH
    )
    assert flags.get_float_details("x", 1.0, context).error_code == ErrorCode.FLAG_NOT_FOUND
    assert flags.get_object_details("x", {}, context).error_code == ErrorCode.FLAG_NOT_FOUND
