"""Ids that follow from what they name: written again, a trace or a piece of feedback is the same.

They hold Kafka's id of the cluster, since another cluster has a `prompts/0/17` of its own.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["assessment_id", "is_sampled", "span_id", "trace_id"]


def trace_id(cluster_id: str, event_id: str) -> str:
    """The trace of an event: `tr-` and 32 hex digits, as MLflow makes of an OpenTelemetry id."""
    return f"tr-{_digest(cluster_id, event_id, size=16)}"


def span_id(trace: str, name: str) -> str:
    """The span of that name in a trace: 16 hex digits."""
    return _digest(trace, name, size=8)


def assessment_id(cluster_id: str, position: str) -> str:
    """Of feedback, by where it stands in Kafka (topic/partition/offset)."""
    return f"a-{_digest(cluster_id, position, size=16)}"


def is_sampled(trace: str, ratio: float) -> bool:
    """Whether a trace is among a share of all; the same answer every time.

    As the sampler TraceIdRatioBased of the OpenTelemetry SDK specification: the id is the chance.

    Args:
        trace: of :func:`trace_id`.
        ratio: in [0, 1].

    >>> [is_sampled(trace_id("c", f"prompts/0/{n}"), 0.3) for n in range(8)]
    [False, False, False, False, True, False, False, False]
    """
    return int(trace[-16:], 16) < ratio * 2**64


def _digest(*parts: str, size: int) -> str:
    return blake2b("\x1f".join(parts).encode(), digest_size=size).hexdigest()
