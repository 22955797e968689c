"""The tracker on a real broker: what its topics say is in MLflow, once, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import urllib.request
import uuid
from collections import Counter
from pathlib import Path as FilePath
from typing import Any

import pytest

from driftgate.broker import probe_cluster
from driftgate.mlflow_server import find_run
from schemas.feedback import CaseReason
from schemas.prompts import Path
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.tracking.identity import is_sampled, trace_id
from tests.support.mlflow_stores import MLFLOW_WARNINGS, START_S, client_of
from tests.support.processes import Driftgate, Launch, eventually
from tests.support.scraping import metrics_of
from tests.support.tracked import (
    MADE_MS,
    ROLLOUT,
    case,
    enriched,
    feedback,
    publish,
    rejected,
    rolled_back,
    started,
    window,
)

pytestmark = MLFLOW_WARNINGS
RATIO = 0.1


def track(launch: Launch, kafka: KafkaSettings, uri: str, ratio: float = RATIO) -> Driftgate:
    """A tracker that has joined its groups."""
    tracker = launch(
        "tracker",
        kafka=kafka,
        DRIFTGATE_MLFLOW_URI=uri,
        DRIFTGATE_HTTP_PORT="0",
        DRIFTGATE_TRACE_RATIO=str(ratio),
    )
    # MLflow's imports alone take 20 s on a busy machine.
    tracker.wait_for_log("traces: ", within_s=START_S)
    return tracker


def total(tracker: Driftgate, name: str) -> float:
    found = metrics_of(tracker)
    return sum(v for k, v in found.items() if k.startswith(f"driftgate_tracker_{name}_total"))


def traces_of(uri: str) -> dict[str, Any]:
    """All traces, by id."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name("driftgate")
    assert experiment is not None
    found: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment.experiment_id], max_results=200, page_token=token
        )
        for trace in page:
            assert trace.info.trace_id not in found
            found[trace.info.trace_id] = trace
        token = page.token
        if not token:
            return found


def run_of(uri: str) -> Any:
    client = client_of(uri)
    experiment = client.get_experiment_by_name("driftgate")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


class Ids:
    """Which traces there should be, of this broker."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._cluster = probe_cluster(kafka.bootstrap_servers, 10).cluster_id

    def of(self, offset: int) -> str:
        return trace_id(self._cluster, f"prompts/0/{offset}")

    def sampled(self, offsets: range) -> set[str]:
        return {self.of(n) for n in offsets if is_sampled(self.of(n), RATIO)}


def test_what_the_topics_say_is_in_mlflow(
    kafka: KafkaSettings, launch: Launch, mlflow_uri: str
) -> None:
    """Runs, metrics, traces, feedback, cases and aliases; what is no event is counted (M78–M82).

    Sampled are those whose id says so; errors, fallbacks, cases and what is spoken of are there in
    any case; nothing is left out without a number for it.
    """
    ids = Ids(kafka)
    left_out = [n for n in range(200) if ids.of(n) not in ids.sampled(range(200))]
    curated, rated, both = left_out[:3]
    sampled = next(n for n in range(200) if n not in left_out)
    asyncio.run(publish(kafka, [
        (Topic.CONTROL, started()),
        *[(Topic.ENRICHED, enriched(n)) for n in range(200)],
        *[(Topic.ENRICHED, enriched(n, Path.FALLBACK)) for n in range(200, 205)],
        *[(Topic.REJECTED, rejected(n)) for n in range(205, 208)],
        *[(Topic.METRICS, window(n)) for n in range(5)],
        *[(Topic.CURATED, case(n)) for n in (curated, both, sampled, 900)],
        *[(Topic.FEEDBACK, feedback(n)) for n in (rated, both, sampled, 901)],
        *[(topic, b"no event") for topic in (Topic.CONTROL, Topic.ENRICHED, Topic.REJECTED,
                                             Topic.METRICS, Topic.CURATED, Topic.FEEDBACK)],
    ]))  # fmt: skip
    tracker = track(launch, kafka, mlflow_uri)
    eventually("all feedback is taken", lambda: total(tracker, "feedback") == 4)
    eventually("all cases are taken", lambda: total(tracker, "cases") == 4)
    eventually("all that is no event is counted", lambda: total(tracker, "undecodable") == 6)
    eventually("the windows are in", lambda: total(tracker, "metric_values") > 0)
    counts = metrics_of(tracker)
    assert counts['driftgate_tracker_feedback_total{outcome="attached"}'] == 3
    assert counts['driftgate_tracker_feedback_total{outcome="no_trace"}'] == 1
    assert counts['driftgate_tracker_traces_total{kept="sampled"}'] == 200 - len(left_out)
    assert counts["driftgate_tracker_sampled_out_total"] == len(left_out)
    assert counts["driftgate_tracker_trace_ratio"] == RATIO

    asyncio.run(publish(kafka, [(Topic.CONTROL, rolled_back())]))
    eventually("the rollback is in", lambda: total(tracker, "control_events") == 2)
    assert tracker.stop() == 0

    traces = traces_of(mlflow_uri)
    expected = ids.sampled(range(200)) | {
        ids.of(n) for n in (*range(200, 208), curated, rated, both, 900)
    }
    assert traces.keys() == expected
    kept = Counter(t.info.tags["driftgate.kept"] for t in traces.values())
    assert kept["fallback"] == 5
    assert kept["error"] == 3
    assert kept["curated"] + kept["feedback"] == 4
    assert len(traces[ids.of(curated)].data.spans) == 5
    assert len(traces[ids.of(900)].data.spans) == 1
    for n in (curated, both, sampled, 900):
        tags = traces[ids.of(n)].info.tags
        assert tags["driftgate.curated"] == CaseReason.LOW_RELEVANCE
    assert traces[ids.of(sampled)].info.tags["driftgate.kept"] == "sampled"
    for n in (rated, both, sampled):
        (said,) = traces[ids.of(n)].info.assessments
        assert (said.name, said.value, said.source.source_id) == ("user_rating", 1.0, "ann")

    run = run_of(mlflow_uri)
    assert run.info.status == "FAILED"
    assert run.data.params["green"] == "semantic"
    assert run.data.metrics["candidate/prompts_per_second"] == 10.0
    aliases = client_of(mlflow_uri).get_registered_model("driftgate-shop").aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "blue": "1",
        "champion": "1",
    }


def test_a_tracker_that_is_killed_loses_and_doubles_nothing(
    kafka: KafkaSettings, launch: Launch, mlflow_uri: str
) -> None:
    """Kill -9, three times, in the middle of traces, feedback and metrics; the next one goes on."""
    ids = Ids(kafka)
    offsets = range(2500)
    spoken_of = sorted(random.Random(7).sample([n for n in offsets if n % 50 == 0], 20))
    fallbacks = set(spoken_of)
    asyncio.run(publish(kafka, [
        (Topic.CONTROL, started()),
        *[(Topic.ENRICHED, enriched(n, Path.FALLBACK if n in fallbacks else Path.SEMANTIC))
          for n in offsets],
        *[(Topic.FEEDBACK, feedback(n)) for n in spoken_of],
        *[(Topic.METRICS, window(n)) for n in range(120)],
        (Topic.CONTROL, rolled_back(MADE_MS + 3_600_000)),
    ]))  # fmt: skip
    expected = ids.sampled(offsets) | {ids.of(n) for n in fallbacks}
    for share in (0.05, 0.4, 0.8):
        tracker = track(launch, kafka, mlflow_uri)

        def far_enough(share: float = share) -> bool:
            return len(written(mlflow_uri)) > share * len(expected)

        eventually("some traces are written", far_enough)
        tracker.kill()
    tracker = track(launch, kafka, mlflow_uri)
    eventually("all feedback is taken", lambda: total(tracker, "feedback") > 0 and idle(tracker))
    assert tracker.stop() == 0

    traces = traces_of(mlflow_uri)
    assert traces.keys() == expected
    assert {len(t.data.spans) for t in traces.values()} == {5}
    rated = Counter(len(traces[ids.of(n)].info.assessments) for n in spoken_of)
    assert rated == {1: len(spoken_of)}
    run = run_of(mlflow_uri)
    history = client_of(mlflow_uri).get_metric_history(run.info.run_id, "candidate/prompts")
    assert sorted(m.step for m in history) == list(range(1, 121))
    assert run.info.status == "FAILED"


def written(uri: str) -> list[str]:
    """The ids of the traces so far, quickly."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name("driftgate")
    if experiment is None:
        return []
    page = client.search_traces(
        locations=[experiment.experiment_id], max_results=500, include_spans=False
    )
    return [trace.info.trace_id for trace in page]


def idle(tracker: Driftgate) -> bool:
    """Whether it has taken all that there is."""
    lag = {k: v for k, v in metrics_of(tracker).items() if k.startswith("driftgate_consumer_lag")}
    return len(lag) == 6 and not any(lag.values())


def test_another_tracker_stands_by_and_takes_over(
    kafka: KafkaSettings, launch: Launch, mlflow_uri: str
) -> None:
    """One is at work, the other is ready; when the first is killed, the second goes on."""
    ids = Ids(kafka)
    pair = [track(launch, kafka, mlflow_uri, ratio=1.0) for _ in range(2)]
    asyncio.run(publish(kafka, [(Topic.ENRICHED, enriched(0))]))
    eventually("it is written", lambda: written(mlflow_uri) == [ids.of(0)])
    working = [p for p in pair if standing(p) == "reading 8 partitions"]
    assert len(working) == 1
    assert len([p for p in pair if standing(p).endswith("this one stands by")]) == 1
    working[0].kill()
    asyncio.run(publish(kafka, [(Topic.ENRICHED, enriched(1))]))
    eventually("the other one writes", lambda: len(written(mlflow_uri)) == 2)


def standing(tracker: Driftgate) -> str:
    """What it was last given of the traces."""
    return re.findall(r"traces: (.*)", tracker.log)[-1]


def test_settings_that_cannot_be_used_are_refused(kafka: KafkaSettings, launch: Launch) -> None:
    """A folder keeps no traces, and a ratio is a number: it is said what to do."""
    for variables, says in (
        ({"DRIFTGATE_MLFLOW_URI": "./mlruns"}, "MLflow keeps no traces in a folder"),
        ({"DRIFTGATE_TRACE_RATIO": "all"}, "DRIFTGATE_TRACE_RATIO='all' cannot be used"),
    ):
        process = launch("tracker", kafka=kafka, **variables)
        assert process.wait() == 3
        assert says in process.log


def test_pages_are_served_until_they_are_not_wanted_any_more(
    kafka: KafkaSettings, launch: Launch, mlflow_uri: str
) -> None:
    """`driftgate mlflow` says where MLflow's pages are, and ends them with itself."""
    pages = launch("mlflow", "--port", "0", "--no-open", "--json", kafka=kafka,
                   DRIFTGATE_MLFLOW_URI=mlflow_uri)  # fmt: skip
    pages.wait_for_log('{"url":', within_s=240.0)
    found = re.search(r'"url":"(http://127\.0\.0\.1:\d+)', pages.log)
    assert found
    with urllib.request.urlopen(found[1], timeout=30) as answer:  # noqa: S310
        assert b"<title>MLflow" in answer.read()
    pages.terminate()
    assert pages.wait() == 130
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(found[1], timeout=30)  # noqa: S310


def test_pages_of_a_server_are_only_pointed_at(
    kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """Where MLflow has a server, nothing is started: its address is printed."""
    pages = launch("mlflow", "--no-open", kafka=kafka, DRIFTGATE_MLFLOW_URI=mlflow_url,
                   DRIFTGATE_MLFLOW_EXPERIMENT="Default")  # fmt: skip
    assert pages.wait() == 0
    assert f"{mlflow_url}/#/experiments/0" in pages.log


def test_the_page_of_a_rollout_is_found(
    kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """By its id, without importing MLflow; a rollout that has no run is said."""
    experiment = f"e-{uuid.uuid4().hex[:8]}"
    client = client_of(mlflow_url)
    place = client.create_experiment(experiment)
    run_id = client.create_run(place, tags={"driftgate.rollout_id": ROLLOUT}).info.run_id
    page = f"{mlflow_url}/#/experiments/{place}/runs/{run_id}"
    assert find_run(mlflow_url, experiment, ROLLOUT) == (run_id, page, False)
    assert find_run(mlflow_url, experiment, "r'") is None
    assert find_run(mlflow_url, "another", ROLLOUT) is None

    asked = {"DRIFTGATE_MLFLOW_URI": mlflow_url, "DRIFTGATE_MLFLOW_EXPERIMENT": experiment}
    command = ("mlflow", "--no-open", "--json", "--rollout")
    pages = launch(*command, ROLLOUT, kafka=kafka, **asked)
    assert pages.wait() == 0
    assert json.loads(pages.log) == {"url": page, "run_id": run_id}
    pages = launch(*command, "r9", kafka=kafka, **asked)
    assert pages.wait() == 1
    assert f"rollout r9 has no run in the experiment '{experiment}'" in pages.log
    client.set_terminated(run_id)
    assert find_run(mlflow_url, experiment, ROLLOUT) == (run_id, page, True)


def test_a_port_that_is_taken_is_said(kafka: KafkaSettings, launch: Launch, mlflow_url: str,
                                      mlflow_uri: str) -> None:  # fmt: skip
    """MLflow's own error would come after its imports, and would be a traceback."""
    port = mlflow_url.rpartition(":")[2]
    pages = launch("mlflow", "--port", port, "--no-open", kafka=kafka,
                   DRIFTGATE_MLFLOW_URI=mlflow_uri)  # fmt: skip
    assert pages.wait() == 3
    assert f"port {port} of 127.0.0.1 is taken" in pages.log
    assert FilePath(mlflow_uri.removeprefix("sqlite:///")).exists()
