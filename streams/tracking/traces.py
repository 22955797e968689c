"""From the events about a prompt to its trace, with the times that each thing really took.

An enriched event says when its results were made (``ce_time``), and how long before that each step
of its batch began and ended; the broker says when it was published. So the spans are laid out on
the analyzer's clock, back from ``ce_time``, and the last one ends on the broker's clock.

``validate`` and the rules of a batch are run together, prompt by prompt, and timed together:
where rules alone are the analysis, ``validate`` and ``analyse`` have the same times.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.feedback import CuratedCase
from schemas.prompts import Path, PromptEnriched, PromptRejected
from streams.tracking.drafts import Kept, RunRef, SpanDraft, TraceDraft
from streams.tracking.identity import is_sampled, trace_id

__all__ = ["MAX_PROMPT_CHARS", "Tracing", "curated_tags"]

MAX_PROMPT_CHARS = 4_000
"""Of a prompt in a trace: enough to know it by. It may have 20,000, which stand in Kafka; a page of
MLflow shows hundreds of traces."""
MAX_PAYLOAD_BYTES = 2_000
"""Of what was rejected, for the same reason."""


class Tracing:
    """Makes traces.

    Args:
        cluster_id: Kafka's, see :mod:`streams.tracking.identity`.
        ratio: share of prompts that are sampled, in [0, 1]; every trace says it.
    """

    def __init__(self, cluster_id: str, ratio: float) -> None:
        self._cluster_id = cluster_id
        self.ratio = ratio

    def id_of(self, event_id: str) -> str:
        """The id of an event's trace."""
        return trace_id(self._cluster_id, event_id)

    def reason_to_keep(self, event: PromptEnriched | PromptRejected) -> Kept | None:
        """Why an event's trace is written; None when it is left out."""
        if isinstance(event, PromptRejected):
            return Kept.ERROR
        if event.path is Path.FALLBACK:
            return Kept.FALLBACK
        return Kept.SAMPLED if is_sampled(self.id_of(event.id), self.ratio) else None

    def enriched(
        self, event: PromptEnriched, kept: Kept, *, made_ms: int, published_ms: int
    ) -> TraceDraft:
        """The trace of an analysis.

        Args:
            event: what came of it.
            kept: why it is written.
            made_ms: its ``ce_time``, ms since the epoch.
            published_ms: the broker's time stamp.
        """
        times = event.timings
        made_ns = made_ms * 1_000_000
        # An event of a version without `batch_seconds` was polled no later than this.
        batch_s = max(times.batch_seconds, times.processing_seconds)
        polled_ns = made_ns - _ns(batch_s)
        ruled_ns = polled_ns + _ns(times.rules_seconds)
        published_ns = max(published_ms * 1_000_000, made_ns)
        assignment = event.assignment
        root = SpanDraft(
            "prompt",
            "CHAIN",
            polled_ns,
            published_ns,
            attributes=self._attributes(event.id, kept)
            | {
                "driftgate.service": event.service,
                "driftgate.prompt_id": event.prompt_id,
                "driftgate.user_id": event.user_id,
                "driftgate.worker_id": event.worker_id,
                "driftgate.assignment": msgspec.to_builtins(assignment),
                "driftgate.timings": msgspec.to_builtins(times),
            },
            inputs={"prompt": event.prompt[:MAX_PROMPT_CHARS]},
            outputs={
                "score": event.score,
                "path": event.path.value,
                "semantic_weight": event.semantic_weight,
                "rules": msgspec.to_builtins(event.rules),
                "semantic": msgspec.to_builtins(event.semantic),
            },
        )
        spans = [root, SpanDraft("validate", "PARSER", polled_ns, ruled_ns)]
        spans += _analysis(event, polled_ns, ruled_ns)
        spans.append(SpanDraft("publish", "TASK", made_ns, published_ns))
        return TraceDraft(
            self.id_of(event.id),
            event.id,
            _name(event),
            kept,
            RunRef(event.service, assignment.rollout_id),
            tuple(spans),
            self._tags(event.id, kept),
        )

    def rejected(self, event: PromptRejected, *, made_ms: int, published_ms: int) -> TraceDraft:
        """The trace of a prompt that was refused; when it was polled is not known."""
        made_ns = made_ms * 1_000_000
        published_ns = max(published_ms * 1_000_000, made_ns)
        error = f"{event.code}: {event.reason}"
        payload = event.payload[:MAX_PAYLOAD_BYTES].decode("utf-8", "replace")
        root = SpanDraft(
            "prompt",
            "CHAIN",
            made_ns,
            published_ns,
            error=error,
            attributes=self._attributes(event.id, Kept.ERROR)
            | {
                "driftgate.service": event.service,
                "driftgate.worker_id": event.worker_id,
                "driftgate.payload_bytes": event.payload_bytes,
            },
            inputs={"payload": payload},
            outputs={"code": event.code.value, "reason": event.reason},
        )
        return TraceDraft(
            self.id_of(event.id),
            event.id,
            f"rejected: {event.code}",
            Kept.ERROR,
            # It was refused before it had an arm: no rollout had anything to do with it.
            None,
            (
                root,
                SpanDraft("validate", "PARSER", made_ns, made_ns, error=error),
                SpanDraft("publish", "TASK", made_ns, published_ns),
            ),
            self._tags(event.id, Kept.ERROR),
        )

    def curated(self, case: CuratedCase) -> TraceDraft:
        """The trace of a case whose event is not at hand any more; its times are not known."""
        at_ns = case.curated_ms * 1_000_000
        attributes = self._attributes(case.id, Kept.CURATED) | {
            "driftgate.service": case.service,
            "driftgate.times": "unknown; this is when the case was picked",
            "driftgate.prompt": "redacted",
        }
        facts = msgspec.to_builtins(case)
        root = SpanDraft(
            "prompt",
            "CHAIN",
            at_ns,
            at_ns,
            attributes=attributes,
            inputs={"prompt": facts.pop("prompt")[:MAX_PROMPT_CHARS]},
            outputs=facts,
        )
        name = f"{case.arm} {case.deployment} (case)"
        return TraceDraft(
            self.id_of(case.id),
            case.id,
            name,
            Kept.CURATED,
            RunRef(case.service, case.rollout_id),
            (root,),
            self._tags(case.id, Kept.CURATED),
        )

    def _attributes(self, event_id: str, kept: Kept) -> dict[str, Any]:
        return {
            "driftgate.event_id": event_id,
            "driftgate.kept": kept.value,
            "driftgate.sample_ratio": self.ratio,
        }

    def _tags(self, event_id: str, kept: Kept) -> dict[str, str]:
        # Each costs MLflow's own stores a look-up and an insert, about a millisecond: only what
        # people filter by. Arm and deployment are in the name, the rollout is the run.
        return {"driftgate.event_id": event_id, "driftgate.kept": kept.value}


def curated_tags(case: CuratedCase) -> dict[str, str]:
    """What a case adds to a trace."""
    return {"driftgate.curated": ",".join(case.reasons)}


def _analysis(event: PromptEnriched, polled_ns: int, ruled_ns: int) -> list[SpanDraft]:
    """The spans of the half that served."""
    times = event.timings
    if event.path is Path.RULES:
        return [SpanDraft("analyse", "CHAIN", polled_ns, ruled_ns)]
    begun_ns = ruled_ns + _ns(times.wait_seconds)
    embedded_ns = begun_ns + _ns(times.embed_seconds)
    if event.path is Path.FALLBACK:
        error = f"{event.fallback_reason}: the rules result is served"
        return [
            SpanDraft("embed", "EMBEDDING", begun_ns, embedded_ns, error=error),
            SpanDraft("analyse", "CHAIN", polled_ns, ruled_ns),
        ]
    hit = event.semantic.cache_hit if event.semantic else False
    return [
        SpanDraft(
            "embed", "EMBEDDING", begun_ns, embedded_ns, attributes={"driftgate.cache_hit": hit}
        ),
        SpanDraft("analyse", "CHAIN", embedded_ns, begun_ns + _ns(times.semantic_seconds)),
    ]


def _name(event: PromptEnriched) -> str:
    assignment = event.assignment
    name = f"{assignment.arm} {assignment.deployment}"
    return f"{name} (fallback: {event.fallback_reason})" if event.fallback_reason else name


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
