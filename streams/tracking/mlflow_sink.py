"""Writes drafts to MLflow, by calls that block; each may be made again without a second effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, AssessmentSourceType, Feedback
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from schemas.version import VERSION
from streams.errors import SinkMissingError, SinkRefusedError, SinkUnavailableError
from streams.settings import TrackerSettings
from streams.tracking.drafts import FeedbackDraft, Points, RunOperation, RunRef, TraceDraft
from streams.tracking.mlflow_errors import translated
from streams.tracking.mlflow_models import ModelRegistry
from streams.tracking.mlflow_runs import Runs
from streams.tracking.mlflow_spans import mlflow_spans

__all__ = ["MlflowSink"]

MAX_LINKS = 100
"""Traces that are linked to a run in a call, MLflow's own limit."""


class _Connection(NamedTuple):
    client: MlflowClient
    tracing: TracingClient
    experiment_id: str
    runs: Runs


class MlflowSink:
    """MLflow, as the tracker writes to it. One thread at a time.

    Every method raises :class:`SinkUnavailableError` where the same may succeed later, and
    :class:`SinkRefusedError` where it is what was sent.

    Args:
        settings: where, and what it is called.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._connection: _Connection | None = None

    def connect(self) -> str:
        """Connect where that was not done; the id of the experiment, which is made if need be."""
        with translated():
            return self._connected().experiment_id

    def probe(self) -> None:
        """Write something small, to see whether MLflow takes anything at all."""
        with translated():
            found = self._connected()
            found.client.set_experiment_tag(found.experiment_id, "driftgate.tracker", VERSION)

    def write_traces(self, drafts: Sequence[TraceDraft]) -> None:
        """Write traces with their spans, and link them to their runs; all or an error."""

        def write(found: _Connection) -> None:
            found.tracing.log_spans(found.experiment_id, mlflow_spans(drafts))
            by_run: dict[RunRef, list[TraceDraft]] = {}
            for draft in drafts:
                if draft.run is not None:
                    by_run.setdefault(draft.run, []).append(draft)
            for ref, several in by_run.items():
                began_ms = min(draft.spans[0].start_ns for draft in several) // 1_000_000
                run = found.runs.get(ref, began_ms)
                ids = [draft.trace_id for draft in several]
                for first in range(0, len(ids), MAX_LINKS):
                    found.client.link_traces_to_run(ids[first : first + MAX_LINKS], run.id)

        self._write(write)

    def tag_trace(self, trace_id: str, tags: dict[str, str]) -> None:
        """Set tags of a trace.

        Raises:
            SinkMissingError: there is no such trace.
        """
        with translated():
            tracing = self._connected().tracing
            # To see that it is there: not every store says so of a tag.
            tracing.get_trace_info(trace_id)
            for key, value in tags.items():
                tracing.set_trace_tag(trace_id, key, value)

    def attach(self, draft: FeedbackDraft) -> None:
        """Attach feedback to its trace.

        Raises:
            SinkMissingError: there is no such trace.
        """
        kind = AssessmentSourceType.HUMAN if draft.human else AssessmentSourceType.LLM_JUDGE
        feedback = Feedback(
            name=draft.name,
            value=draft.value,
            source=AssessmentSource(source_type=kind, source_id=draft.source),
            rationale=draft.comment,
            metadata=draft.metadata,
            create_time_ms=draft.at_ms,
            last_update_time_ms=draft.at_ms,
        )
        feedback.assessment_id = draft.assessment_id
        with translated():
            tracing = self._connected().tracing
            try:
                tracing.log_assessment(draft.trace_id, feedback)
            except MlflowException as error:
                # A repetition is an error like any other to MLflow's stores.
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" or not _has(tracing, draft):
                    raise

    def apply(self, operations: Sequence[RunOperation]) -> None:
        """Do something to runs, in this order."""

        def write(found: _Connection) -> None:
            for operation in operations:
                found.runs.apply(operation)

        self._write(write)

    def log_points(self, points: Sequence[Points]) -> None:
        """Write metrics, in as few calls as can be."""
        self._write(lambda found: found.runs.log(points))

    def _write(self, write: Callable[[_Connection], None]) -> None:
        try:
            with translated():
                write(self._connected())
        except SinkRefusedError:
            # A run that we remember may be deleted, or the database another one: look again.
            self._connection = None
            try:
                with translated():
                    write(self._connected())
            except SinkMissingError as error:
                raise SinkRefusedError(str(error)) from error

    def _connected(self) -> _Connection:
        if self._connection is None:
            settings = self._settings
            client = MlflowClient(settings.uri, registry_uri=settings.uri)
            experiment_id = self._experiment(client)
            registry = ModelRegistry(client, settings.loader_module, settings.requirements)
            tags = {"driftgate.trace_ratio": f"{settings.trace_ratio:g}"}
            runs = Runs(client, registry, experiment_id, tags)
            self._connection = _Connection(client, TracingClient(settings.uri), experiment_id, runs)
        return self._connection

    def _experiment(self, client: MlflowClient) -> str:
        name = self._settings.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, self._settings.artifact_location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process was first.
            found = client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise SinkUnavailableError(
                f"experiment {name!r} is deleted: restore it (`mlflow experiments restore`), or "
                "choose another with DRIFTGATE_MLFLOW_EXPERIMENT"
            )
        return str(found.experiment_id)


def _has(tracing: TracingClient, draft: FeedbackDraft) -> bool:
    try:
        tracing.get_assessment(draft.trace_id, draft.assessment_id)
    except MlflowException:
        return False
    return True
