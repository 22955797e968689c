"""What is written to MLflow, read back by MLflow's own API: SQLite, and a real server (M78–M82)."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest

from schemas.feedback import FeedbackKind
from schemas.prompts import Path, SourcePosition
from streams.errors import SinkMissingError, SinkUnavailableError
from streams.tracking.drafts import FeedbackDraft, Kept, RunRef, TraceDraft
from streams.tracking.feedback import feedback_draft
from streams.tracking.points import window_points
from streams.tracking.runs import run_operations
from streams.tracking.traces import Tracing
from tests.support.mlflow_stores import (
    MLFLOW_WARNINGS,
    client_of,
    mlflow_module,
    settings_of,
    sink_of,
)
from tests.support.tracked import (
    MADE_MS,
    ROLLOUT,
    enriched,
    feedback,
    promoted,
    rejected,
    rolled_back,
    started,
    window,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from streams.tracking.mlflow_sink import MlflowSink

pytestmark = MLFLOW_WARNINGS


class Written:
    """A sink, and MLflow as its users see it."""

    def __init__(self, uri: str) -> None:
        settings = settings_of(uri, experiment=f"e-{uuid.uuid4().hex[:8]}")
        self.uri = uri
        # Of its own, since a trace stays in the experiment that it was first written to.
        self.cluster_id = uuid.uuid4().hex
        self.tracing = Tracing(self.cluster_id, 0.25)
        self.sink: MlflowSink = sink_of(settings)
        self.client: MlflowClient = client_of(uri)
        self.experiment_id = self.sink.connect()

    def drafts(self, count: int) -> list[TraceDraft]:
        return [
            self.tracing.enriched(
                enriched(n), Kept.SAMPLED, made_ms=MADE_MS + n, published_ms=MADE_MS + n + 30
            )
            for n in range(count)
        ]

    def feedback(
        self, offset: int, value: float = 1.0, kind: FeedbackKind = FeedbackKind.USER_RATING
    ) -> FeedbackDraft:
        position = SourcePosition("prompts.feedback", 1, 5)
        return feedback_draft(
            feedback(offset, value, kind), position, cluster_id=self.cluster_id, at_ms=MADE_MS
        )

    def traces(self, **query: Any) -> list[Any]:
        return list(self.client.search_traces(locations=[self.experiment_id], **query))

    def runs(self) -> list[Any]:
        return list(self.client.search_runs([self.experiment_id]))

    def aliases(self, service: str) -> dict[str, str]:
        aliases = self.client.get_registered_model(f"driftgate-{service}").aliases
        return {alias: str(version) for alias, version in aliases.items()}


@pytest.fixture(params=["sqlite", "server"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    """One contract over both ways to write."""
    name = "mlflow_uri" if request.param == "sqlite" else "mlflow_url"
    return Written(request.getfixturevalue(name))


def test_a_trace_comes_back_with_its_spans_and_times(written: Written) -> None:
    """Names, parents, times to the nanosecond, inputs, outputs, tags, state, and its run (M78)."""
    (draft,) = written.drafts(1)
    written.sink.write_traces([draft])
    (trace,) = written.traces()
    info, root = trace.info, trace.data.spans[0]
    assert info.trace_id == draft.trace_id
    assert info.request_time == MADE_MS - 150
    assert info.execution_duration == 180
    assert info.state.value == "OK"
    assert info.tags["driftgate.event_id"] == "prompts/0/0"
    assert info.tags["driftgate.kept"] == "sampled"
    assert [(s.name, s.start_time_ns, s.end_time_ns) for s in trace.data.spans] == [
        (s.name, s.start_ns, s.end_ns) for s in draft.spans
    ]
    assert [s.parent_id for s in trace.data.spans] == [None] + [root.span_id] * 4
    assert root.inputs == {"prompt": "Explain the moon"}
    assert root.outputs["score"] == 0.5
    assert root.attributes["driftgate.sample_ratio"] == 0.25
    (run,) = written.runs()
    assert written.traces(filter_string=f"attributes.run_id = '{run.info.run_id}'")
    assert written.traces(filter_string="tags.`driftgate.kept` = 'sampled'")
    assert written.traces(filter_string="attributes.name = 'candidate semantic'")


def test_errors_and_fallbacks_are_marked(written: Written) -> None:
    """A rejection is an error; a fallback was served, and the span that failed is one (M81)."""
    fallback = written.tracing.enriched(
        enriched(1, Path.FALLBACK), Kept.FALLBACK, made_ms=MADE_MS, published_ms=MADE_MS
    )
    refused = written.tracing.rejected(rejected(2), made_ms=MADE_MS, published_ms=MADE_MS)
    written.sink.write_traces([fallback, refused])
    (error,) = written.traces(filter_string="attributes.status = 'ERROR'")
    assert error.info.trace_id == refused.trace_id
    assert error.data.spans[0].status.description == "empty: nothing to be seen"
    (served,) = written.traces(filter_string="tags.`driftgate.kept` = 'fallback'")
    statuses = {span.name: span.status.status_code.value for span in served.data.spans}
    assert statuses == {"prompt": "OK", "validate": "OK", "embed": "ERROR", "analyse": "OK",
                        "publish": "OK"}  # fmt: skip


def test_what_is_written_again_is_not_there_twice(written: Written) -> None:
    """Traces, links, feedback and metrics may all be repeated."""
    drafts = written.drafts(7)
    said = written.feedback(3, 0.0)
    points = [p for n in range(3) if (p := window_points(window(n)))]
    for _ in range(3):
        written.sink.write_traces(drafts)
        written.sink.attach(said)
        written.sink.log_points(points)
        written.sink.tag_trace(drafts[0].trace_id, {"driftgate.curated": "drift"})
    traces = written.traces()
    assert sorted(t.info.trace_id for t in traces) == sorted(d.trace_id for d in drafts)
    assert {len(t.data.spans) for t in traces} == {5}
    (run,) = written.runs()
    linked = written.traces(filter_string=f"attributes.run_id = '{run.info.run_id}'")
    assert len(linked) == 7
    assert sum(len(t.info.assessments) for t in traces) == 1
    history = written.client.get_metric_history(run.info.run_id, "candidate/prompts")
    assert [(m.step, m.timestamp, m.value) for m in sorted(history, key=lambda m: m.step)] == [
        # The run begins with the first prompt, 150 ms before, in the hop before.
        (n + 2, MADE_MS + 10_000 * (n + 1), 100.0)
        for n in range(3)
    ]


@pytest.mark.parametrize("kind", list(FeedbackKind))
def test_feedback_is_attached_to_its_trace(written: Written, kind: FeedbackKind) -> None:
    """Who said what, when, and where it stands in Kafka."""
    (draft,) = written.drafts(1)
    written.sink.write_traces([draft])
    written.sink.attach(written.feedback(0, 1.0, kind))
    (found,) = written.traces()[0].info.assessments
    assert (found.name, found.value, found.rationale) == (kind.value, 1.0, "helpful")
    assert found.source.source_id == "ann"
    human = kind is not FeedbackKind.JUDGE_SCORE
    assert found.source.source_type == ("HUMAN" if human else "LLM_JUDGE")
    assert found.metadata["driftgate.source"] == "prompts.feedback/1/5"


def test_feedback_on_nothing_says_so(written: Written) -> None:
    """A trace that was left out is not there: the caller decides what that means."""
    said = written.feedback(99)
    with pytest.raises(SinkMissingError):
        written.sink.attach(said)
    with pytest.raises(SinkMissingError):
        written.sink.tag_trace(said.trace_id, {"driftgate.curated": "drift"})


def test_a_rollout_is_a_run_and_its_aliases_move_back(written: Written) -> None:
    """Parameters, policy, metrics, verdict; aliases before and after the rollback (M79, M82)."""
    service = f"shop-{uuid.uuid4().hex[:6]}"
    events = [of_service(e, service) for e in (started(), rolled_back())]
    written.sink.apply(run_operations(events[0]))
    assert written.aliases(service) == {"blue": "1", "champion": "1", "green": "2"}
    points = [p for n in range(2) if (p := window_points(window(n, service=service)))]
    written.sink.log_points(points)
    written.sink.apply(run_operations(events[1]))
    assert written.aliases(service) == {"blue": "1", "champion": "1"}

    (run,) = written.runs()
    assert run.info.status == "FAILED"
    assert (run.info.start_time, run.info.end_time) == (MADE_MS, MADE_MS + 60_000)
    assert run.data.params["green"] == "semantic"
    assert run.data.params["gate.coherence"] == "coherence mean >= 0.7 (guardrail)"
    assert run.data.tags["driftgate.verdict"] == "rolled_back"
    assert run.data.tags["driftgate.gate"] == "coherence"
    assert run.data.metrics["candidate/processing_seconds_p95"] == 0.2
    assert run.data.metrics["gate/coherence/verdict"] == 3.0
    files = [file.path for file in written.client.list_artifacts(run.info.run_id)]
    assert sorted(files) == ["deployments", "policy.yaml"]
    version = written.client.get_model_version(f"driftgate-{service}", "2")
    assert version.tags["driftgate.verdict"] == "rolled_back"
    assert version.tags["driftgate.deployment"] == "semantic"


def of_service(event: Any, service: str) -> Any:
    return msgspec.structs.replace(event, service=service)


def test_a_promotion_moves_champion_and_an_abort_moves_it_back(written: Written) -> None:
    """And what comes late, or again, does not move anything any more."""
    service = f"shop-{uuid.uuid4().hex[:6]}"
    begun = of_service(started(), service)
    for _ in range(2):
        written.sink.apply(run_operations(begun))
    written.sink.apply(run_operations(of_service(promoted(), service)))
    assert written.aliases(service) == {"blue": "2", "champion": "2"}
    written.sink.apply(run_operations(of_service(rolled_back(MADE_MS + 90_000, "ann"), service)))
    assert written.aliases(service) == {"blue": "1", "champion": "1"}
    written.sink.apply(run_operations(of_service(promoted(), service)))
    assert written.aliases(service) == {"blue": "1", "champion": "1"}
    versions = written.client.search_model_versions(f"name = 'driftgate-{service}'")
    assert len(versions) == 2


def test_the_same_deployment_is_the_same_version_in_the_next_rollout(written: Written) -> None:
    """Versions are configurations, not rollouts."""
    service = f"shop-{uuid.uuid4().hex[:6]}"
    for number, rollout in enumerate(("first", "second")):
        event = msgspec.structs.replace(
            of_service(started(MADE_MS + number), service), rollout_id=rollout
        )
        written.sink.apply(run_operations(event))
    assert written.aliases(service) == {"blue": "1", "champion": "1", "green": "2"}
    assert len(written.runs()) == 2


def test_champion_can_be_loaded_and_analyses(written: Written) -> None:
    """`models:/…@champion` gives the analysis that a worker would give, and refuses as it would."""
    service = f"shop-{uuid.uuid4().hex[:6]}"
    written.sink.apply(run_operations(of_service(started(), service)))
    mlflow = mlflow_module()
    mlflow.set_tracking_uri(written.uri)
    mlflow.set_registry_uri(written.uri)
    model = mlflow.pyfunc.load_model(f"models:/driftgate-{service}@champion")
    table = pd.DataFrame({"prompt": ["Explain inflation to a ten-year-old.", "?"],
                              "domain": ["general", None]})  # fmt: skip
    good, bad = model.predict(table)
    assert good["accepted"] is True
    assert good["deployment"] == "baseline"
    assert good["path"] == "rules"
    assert 0.0 < good["score"] < 1.0
    assert good["score"] == good["rules"]["overall"]
    assert (bad["accepted"], bad["code"]) == (False, "too_short")


def test_a_service_may_be_called_anything(written: Written) -> None:
    """Quotes and slashes in a name reach neither a filter nor a model's name."""
    service = f'it\'s "a/b:c" {uuid.uuid4().hex[:6]}'
    event = of_service(started(), service)
    for _ in range(2):
        written.sink.apply(run_operations(event))
    (run,) = written.runs()
    assert run.data.tags["driftgate.service"] == service


def test_a_run_that_was_deleted_is_made_again(written: Written) -> None:
    """Somebody tidies up while the tracker runs: it goes on with a new one."""
    points = [p for n in range(2) if (p := window_points(window(n)))]
    written.sink.log_points(points[:1])
    written.client.delete_run(written.runs()[0].info.run_id)
    written.sink.log_points(points[1:])
    (run,) = written.runs()
    history = written.client.get_metric_history(run.info.run_id, "candidate/prompts")
    assert [m.timestamp for m in history] == [MADE_MS + 20_000]


def experiment_name(written: Written) -> str:
    return str(written.client.get_experiment(written.experiment_id).name)


def test_two_processes_make_one_experiment_and_one_run(written: Written) -> None:
    """Each finds what the other has made."""
    (point,) = [p for p in [window_points(window())] if p]
    for _ in range(2):
        sink = sink_of(settings_of(written.uri, experiment=experiment_name(written)))
        assert sink.connect() == written.experiment_id
        sink.log_points([point])
    assert len(written.runs()) == 1


def test_a_deleted_experiment_is_said_with_its_cure(written: Written) -> None:
    """The tracker waits for it to be restored, and says how."""
    name = experiment_name(written)
    written.client.delete_experiment(written.experiment_id)
    sink = sink_of(settings_of(written.uri, experiment=name))
    with pytest.raises(SinkUnavailableError, match="mlflow experiments restore"):
        sink.connect()


def test_a_locked_database_is_waited_for_and_then_said(mlflow_uri: str) -> None:
    """MLflow waits 20 s for SQLite; then the same may be tried again, and succeeds."""
    written = Written(mlflow_uri)
    with sqlite3.connect(mlflow_uri.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SinkUnavailableError, match="locked"):
            written.sink.write_traces(written.drafts(1))
        other.execute("ROLLBACK")
    written.sink.write_traces(written.drafts(1))
    assert len(written.traces()) == 1


def test_metrics_of_a_service_without_a_rollout_have_a_run_too(written: Written) -> None:
    """Nothing is left out because nothing was rolled out yet."""
    found = window_points(window(rollout_id=None))
    assert found is not None
    assert found.run == RunRef("shop", None)
    written.sink.log_points([found])
    (run,) = written.runs()
    assert run.data.metrics["candidate/prompts"] == 100.0
    assert run.data.tags["driftgate.rollout_id"] == ""
    assert run.data.tags["driftgate.service"] == "shop"
    assert ROLLOUT not in run.info.run_name
