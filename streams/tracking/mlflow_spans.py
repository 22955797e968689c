"""Drafts of traces as MLflow's spans, ready to be written in one call.

That call is the one behind MLflow's OpenTelemetry endpoint (``POST /v1/traces``): any number of
finished traces at once, all or none, and one that is written again replaces itself. The fluent API
would write each by a queue of threads that drops what it cannot take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from mlflow.entities import Span

from streams.tracking.drafts import SpanDraft, TraceDraft
from streams.tracking.identity import span_id

__all__ = ["mlflow_spans"]


def mlflow_spans(drafts: Sequence[TraceDraft]) -> list[Span]:
    """The spans of traces."""
    return [
        _span(draft, span, root=draft.spans[0].name)
        for draft in drafts
        for span in draft.spans
    ]  # fmt: skip


def _span(draft: TraceDraft, span: SpanDraft, *, root: str) -> Span:
    is_root = span.name == root
    attributes: dict[str, Any] = {
        "mlflow.traceRequestId": draft.trace_id,
        "mlflow.spanType": span.kind,
        **{name: value for name, value in span.attributes.items() if value is not None},
    }
    if span.inputs is not None:
        attributes["mlflow.spanInputs"] = span.inputs
    if span.outputs is not None:
        attributes["mlflow.spanOutputs"] = span.outputs
    if is_root:
        tags = {"mlflow.traceName": draft.name, **draft.tags}
        attributes |= {f"mlflow.traceTag.{name}": value for name, value in tags.items()}
    return Span.from_dict(
        {
            "trace_id": draft.trace_id,
            "span_id": span_id(draft.trace_id, span.name),
            "parent_span_id": "" if is_root else span_id(draft.trace_id, root),
            "name": span.name,
            "start_time_unix_nano": span.start_ns,
            "end_time_unix_nano": span.end_ns,
            "status": {"code": "ERROR" if span.error else "OK", "message": span.error or ""},
            "attributes": {
                name: msgspec.json.encode(value).decode() for name, value in attributes.items()
            },
            "events": [],
        }
    )
