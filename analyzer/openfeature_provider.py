"""The router as an OpenFeature provider: the same question, the same answer, in other services.

Flags (M9, M47, M51):
    ``deployment`` (string): the name of the deployment that serves this user; shadow serves blue.
    ``semantic`` (boolean): whether that deployment is a semantic one.

The targeting key is the user, as in :class:`schemas.prompts.PromptSubmitted`; the context's
attributes are what segments look at. Spec: OpenFeature 0.8, sections 1.4 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import FlagNotFoundError, TargetingKeyMissingError, TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider
from openfeature.provider.metadata import Metadata

from analyzer.route import NO_SEGMENT, assign
from schemas.prompts import Assignment
from schemas.rollout import DeploymentKind, RolloutState

__all__ = ["RolloutProvider"]

T = TypeVar("T")


class RolloutProvider(AbstractProvider):
    """Answers from the newest rollout state.

    Args:
        state: the state now, for example of an :class:`analyzer.follower.RolloutFollower`.
        is_stale: whether that state may be behind the topic; answers then say so.
    """

    def __init__(
        self, state: Callable[[], RolloutState], is_stale: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self._state = state
        self._is_stale = is_stale

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="driftgate")

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The flag ``deployment``.

        Raises:
            FlagNotFoundError, TypeMismatchError, TargetingKeyMissingError: as the specification
                says; the client then gives the caller's default.
        """
        if flag_key != "deployment":
            raise _unknown(flag_key, "deployment", "a boolean")
        state = self._state()
        assignment = self._assign(state, evaluation_context)
        return self._details(assignment.deployment, state, assignment)

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """The flag ``semantic``; raises as :meth:`resolve_string_details` does."""
        if flag_key != "semantic":
            raise _unknown(flag_key, "semantic", "a string")
        state = self._state()
        assignment = self._assign(state, evaluation_context)
        green = state.green
        served = green if green and green.name == assignment.deployment else state.blue
        return self._details(served.kind is DeploymentKind.SEMANTIC, state, assignment)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """There is no such flag."""
        raise _unknown(flag_key, "", "a string or boolean")

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """There is no such flag."""
        raise _unknown(flag_key, "", "a string or boolean")

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """There is no such flag."""
        raise _unknown(flag_key, "", "a string or boolean")

    def _assign(self, state: RolloutState, context: EvaluationContext | None) -> Assignment:
        if context is None or not context.targeting_key:
            raise TargetingKeyMissingError("the targeting key is the user that an arm sticks to")
        attributes = {
            name: value
            for name, value in context.attributes.items()
            if isinstance(value, str | bool | int | float)
        }
        return assign(state, context.targeting_key, attributes)

    def _details(
        self, value: T, state: RolloutState, assignment: Assignment
    ) -> FlagResolutionDetails[T]:
        metadata: dict[str, bool | int | float | str] = {
            "revision": state.revision,
            "bucket": assignment.bucket,
            "hash_version": assignment.hash_version,
            "salt": assignment.salt,
            "segment": assignment.segment,
        }
        if assignment.rollout_id is not None:
            metadata["rollout_id"] = assignment.rollout_id
        if assignment.shadow_deployment is not None:
            metadata["shadow_deployment"] = assignment.shadow_deployment
        return FlagResolutionDetails(
            value=value,
            variant=assignment.arm.value,
            reason=self._reason(state, assignment),
            flag_metadata=metadata,
        )

    def _reason(self, state: RolloutState, assignment: Assignment) -> Reason:
        if self._is_stale():
            return Reason.STALE
        if not state.splits:
            return Reason.DISABLED
        if assignment.segment != NO_SEGMENT:
            forced = next((s.force for s in state.segments if s.name == assignment.segment), None)
            if forced is not None:
                return Reason.TARGETING_MATCH
        if state.only_segments:
            if assignment.segment not in state.only_segments:
                return Reason.DISABLED
            if state.share == 1.0:
                return Reason.TARGETING_MATCH
        return Reason.SPLIT


def _unknown(flag_key: str, ours: str, kind: str) -> FlagNotFoundError | TypeMismatchError:
    if flag_key in ("deployment", "semantic") and flag_key != ours:
        return TypeMismatchError(f"the flag {flag_key!r} is {kind}")
    return FlagNotFoundError(f"no flag {flag_key!r}; there are `deployment` and `semantic`")
