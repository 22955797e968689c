"""What happens to a prompt, as pure functions: admit it, and make its result of what was found."""

from __future__ import annotations

from typing import NamedTuple

from analyzer.blend import blend
from analyzer.decode import decode_prompt
from analyzer.errors import Rejection
from analyzer.fourier import FourierRow
from analyzer.route import NO_SEGMENT, assign
from analyzer.rules import rule_scores
from analyzer.validate import Limits, trusted_event_time, validate
from schemas.prompts import (
    Arm,
    Assignment,
    FallbackReason,
    Path,
    PromptEnriched,
    PromptRejected,
    PromptSubmitted,
    RejectionCode,
    RuleScores,
    SemanticScores,
    SourcePosition,
    Timings,
)
from schemas.rollout import Deployment, DeploymentKind, RolloutState

__all__ = [
    "MAX_DEAD_LETTER_BYTES",
    "MAX_KEY_BYTES",
    "Accepted",
    "Incoming",
    "Refused",
    "Semantic",
    "admit",
    "enriched",
    "rejected",
]

MAX_DEAD_LETTER_BYTES = 256 * 1024
"""A dead letter must fit its topic; the rest of a larger payload still stands at its source."""
MAX_KEY_BYTES = 64 * 1024
"""Of a record's key, which names a user or a prompt. A result carries it and must fit its topic."""


class Incoming(NamedTuple):
    """A record of the prompts topic."""

    source: SourcePosition
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def result_key(self) -> bytes | None:
        """The key of what comes of it; None where it has one that is too large to be a key."""
        return None if self.key is not None and len(self.key) > MAX_KEY_BYTES else self.key


class Accepted(NamedTuple):
    """A prompt with its assignment and its rules result."""

    incoming: Incoming
    prompt: PromptSubmitted
    assignment: Assignment
    rules: RuleScores
    measured: Deployment
    """The deployment that the measurement is about: green in shadow, else what is served."""
    served: Deployment
    queue_seconds: float | None

    @property
    def semantic_deployments(self) -> list[Deployment]:
        """The deployments whose semantic half is to be computed: none, one, or both in shadow."""
        both = {d.name: d for d in (self.measured, self.served)}
        return [d for d in both.values() if d.kind is DeploymentKind.SEMANTIC]


class Refused(NamedTuple):
    """A prompt that goes to the dead letters."""

    incoming: Incoming
    code: RejectionCode
    reason: str
    arm: Arm = Arm.CONTROL
    segment: str = NO_SEGMENT
    """Both of a prompt that we failed on after it had them."""


class Semantic(NamedTuple):
    """What came of the semantic half for one prompt."""

    scores: SemanticScores | None
    fallback: FallbackReason | None
    embed_seconds: float
    semantic_seconds: float
    fourier: FourierRow | None = None
    wait_seconds: float = 0.0
    """From the end of the rules phase to its beginning."""


def admit(incoming: Incoming, state: RolloutState, limits: Limits) -> Accepted | Refused:
    """Decode, validate, route, and analyse by rules."""
    arm, segment = Arm.CONTROL, NO_SEGMENT
    try:
        _check_key(incoming.key)
        prompt = decode_prompt(incoming.value)
        validate(prompt, limits)
        key = prompt.user_id or _text(incoming.key) or prompt.id or incoming.source.event_id()
        assignment = assign(state, key, prompt.attributes)
        arm, segment = assignment.arm, assignment.segment
        rules = rule_scores(prompt.prompt)
        event_ms = trusted_event_time(prompt, incoming.timestamp_ms)
    except Rejection as rejection:
        return Refused(incoming, rejection.code, rejection.reason)
    except Exception as error:  # noqa: BLE001 - a defect of ours must cost one prompt, not the worker
        reason = f"{type(error).__name__}: {error}"
        return Refused(incoming, RejectionCode.INTERNAL_ERROR, reason, arm, segment)
    green_served = state.green is not None and assignment.deployment == state.green.name
    served = state.green if green_served and state.green is not None else state.blue
    shadowed = assignment.shadow_deployment is not None and state.green is not None
    return Accepted(
        incoming=incoming,
        prompt=prompt,
        assignment=assignment,
        rules=rules,
        measured=state.green if shadowed and state.green is not None else served,
        served=served,
        queue_seconds=None if event_ms is None else max(incoming.timestamp_ms - event_ms, 0) / 1000,
    )


def enriched(
    accepted: Accepted,
    semantic: Semantic | None,
    *,
    service: str,
    worker_id: str,
    rules_seconds: float,
    processing_seconds: float,
    batch_seconds: float = 0.0,
) -> PromptEnriched:
    """The result that is served.

    Args:
        accepted: the prompt.
        semantic: of the deployment that serves it, if that has a semantic half.
        service: what it belongs to.
        worker_id: who did it.
        rules_seconds: of the rules phase of its batch.
        processing_seconds: from the poll to this result.
        batch_seconds: from the poll to the results of all of the batch.
    """
    if accepted.served.kind is not DeploymentKind.SEMANTIC:
        # In shadow the candidate's result is measured, and blue's is served.
        semantic = None
    scores = semantic.scores if semantic else None
    weight = accepted.served.semantic_weight if scores else 0.0
    if scores is not None:
        path = Path.SEMANTIC
    elif semantic is not None:
        path = Path.FALLBACK
    else:
        path = Path.RULES
    source = accepted.incoming.source
    return PromptEnriched(
        id=source.event_id(),
        prompt_id=accepted.prompt.id,
        user_id=accepted.prompt.user_id,
        service=service,
        source=source,
        prompt=accepted.prompt.prompt,
        path=path,
        fallback_reason=semantic.fallback if semantic else None,
        assignment=accepted.assignment,
        rules=accepted.rules,
        semantic=scores,
        score=blend(accepted.rules.overall, scores.overall if scores else 0.0, weight),
        semantic_weight=weight,
        timings=Timings(
            rules_seconds=rules_seconds,
            embed_seconds=semantic.embed_seconds if semantic else 0.0,
            semantic_seconds=semantic.semantic_seconds if semantic else 0.0,
            processing_seconds=processing_seconds,
            queue_seconds=accepted.queue_seconds,
            wait_seconds=semantic.wait_seconds if semantic else 0.0,
            batch_seconds=batch_seconds,
        ),
        worker_id=worker_id,
    )


def rejected(refused: Refused, *, service: str, worker_id: str) -> PromptRejected:
    """The dead letter."""
    payload = refused.incoming.value or b""
    source = refused.incoming.source
    return PromptRejected(
        id=source.event_id(),
        service=service,
        source=source,
        code=refused.code,
        reason=refused.reason,
        payload=payload[:MAX_DEAD_LETTER_BYTES],
        payload_bytes=len(payload),
        payload_truncated=len(payload) > MAX_DEAD_LETTER_BYTES,
        worker_id=worker_id,
    )


def _check_key(key: bytes | None) -> None:
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise Rejection(
            RejectionCode.RECORD_TOO_LARGE, f"key of {len(key)} bytes > limit of {MAX_KEY_BYTES}"
        )


def _text(key: bytes | None) -> str | None:
    return key.decode("utf-8", "replace") if key else None
