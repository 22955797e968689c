"""The demo, as a stranger runs it, and what it leaves in MLflow (M78-M82)."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

from schemas.settings import KafkaSettings
from tests.support.mlflow_stores import MLFLOW_WARNINGS, client_of
from tests.support.mlflow_story import aliases_of, read_back
from tests.support.processes import Launch, eventually

pytestmark = MLFLOW_WARNINGS

STORY_S = 300.0
"""All of driftgate at once, on a machine that may have two cores and other things to do."""


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the demo printed it
        return int(answer.status)


def test_the_demo_is_read_back_from_mlflow(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Run, metrics, traces, feedback; the aliases before the rollback and after it.

    Then it stays, with the console and MLflow's page open, until Ctrl-C.
    """
    # MLflow's imports and a first look at a database take longer than the story waits.
    client_of(f"sqlite:///{tmp_path / 'other.db'}").search_experiments()
    demo = launch("demo", "--headless", "--keep", kafka=kafka, TMPDIR=str(tmp_path))
    demo.wait_for_log("rollout.started", within_s=STORY_S)
    (folder,) = tmp_path.glob("driftgate-demo-*")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    eventually("MLflow knows the deployments", lambda: "green is version" in (
        folder / "tracker.log").read_text("utf-8"), STORY_S)  # fmt: skip
    before = aliases_of(uri, "demo")
    demo.wait_for_log('{"rolled_back"', within_s=STORY_S)
    (line,) = re.findall(r"^\{.*\}$", demo.log, re.MULTILINE)
    outcome = json.loads(line)

    assert before == {"blue": "baseline", "champion": "baseline", "green": "semantic"}
    assert aliases_of(uri, "demo") == {"blue": "baseline", "champion": "baseline"}
    assert (outcome["rolled_back"], outcome["gate"]) == (True, "semantic-errors")
    assert (outcome["lost"], outcome["duplicated"]) == (0, 0)
    assert outcome["mlflow_uri"] == uri

    (rollout_id,) = set(re.findall(r"rollout (\S+) is run", (folder / "tracker.log").read_text()))
    eventually("feedback is in", lambda: read_back(uri, rollout_id).assessments)
    found = read_back(uri, rollout_id)
    assert found.run.info.run_id == outcome["mlflow_run"]
    assert found.run.info.status == "FAILED"
    assert found.run.data.tags["driftgate.reason"] == outcome["reason"]
    assert found.run.data.params["green"] == "semantic"
    for name in ("candidate/prompts", "control/prompts", "candidate/relevance_mean"):
        assert found.run.data.metrics[name] >= 0.0
    assert found.kept["fallback"] >= 1
    assert found.kept["sampled"] >= 1
    spans = {span.name for trace in found.traces for span in trace.data.spans}
    assert {"validate", "embed", "analyse", "publish"} <= spans
    assert all(said.value in (0.0, 1.0) for said in found.assessments)

    # It is still there: the console, and the run's page.
    assert status_of(f"{outcome['console']}/healthz") == 200
    (page,) = re.findall(r"MLflow: (http://\S+)", demo.log)
    assert outcome["mlflow_run"] in page
    assert status_of(page.split("#")[0]) == 200
    assert re.search(r"sign in with \S{20,}", demo.log)
    assert demo.stop() == 0
