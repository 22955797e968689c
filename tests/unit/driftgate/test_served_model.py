"""A deployment as MLflow loads it gives the analysis that a worker gives (M82)."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from analyzer.encoder import HashingEncoder
from analyzer.rules import rule_scores
from driftgate.served_model import DeploymentModel, _load_pyfunc
from schemas.rollout import Deployment, DeploymentKind
from schemas.version import VERSION
from tests.support.workers import model_of

RULES = Deployment(name="baseline", kind=DeploymentKind.RULES)
SEMANTIC = Deployment(name="semantic", kind=DeploymentKind.SEMANTIC, semantic_weight=0.4)
TEXT = "Write a SQL query for the ten customers with the highest revenue."


def test_rules_need_no_model() -> None:
    """The score of the rules, as a worker would serve it."""
    (result,) = DeploymentModel("shop", RULES).predict([{"prompt": TEXT}])
    assert result["accepted"] is True
    assert result["path"] == "rules"
    assert result["score"] == rule_scores(TEXT).overall
    assert result["semantic"] is None


def test_semantics_are_blended_with_the_deployments_weight() -> None:
    """Rules and semantic half, by the weight that was registered."""
    model = DeploymentModel("shop", SEMANTIC)
    model._model = model_of(HashingEncoder())
    table = pd.DataFrame({"prompt": [TEXT, "Explain inflation."], "domain": ["general", None]})
    results = model.predict(table)
    assert [result["path"] for result in results] == ["semantic", "semantic"]
    for result in results:
        rules, semantic = result["rules"]["overall"], result["semantic"]["overall"]
        assert result["score"] == pytest.approx(0.6 * rules + 0.4 * semantic)
    assert results[0]["semantic"]["domain"] == "general"


def test_bad_input_is_refused_as_a_worker_refuses_it() -> None:
    """With a code and a reason, in its place among the others."""
    rows = [{"prompt": ""}, {"prompt": TEXT}, {"text": TEXT}, {"prompt": "x" * 30_000}]
    results = DeploymentModel("shop", RULES).predict(rows)
    assert [r["accepted"] for r in results] == [False, True, False, False]
    assert [r.get("code") for r in results] == ["empty", None, "wrong_shape", "too_long"]
    assert "30000" in results[3]["reason"]


def described(folder: Path, code_version: str) -> str:
    path = folder / "deployment.json"
    path.write_bytes(
        msgspec.json.encode(
            {"service": "shop", "code_version": code_version, "deployment": SEMANTIC}
        )
    )
    return str(path)


def test_what_was_registered_is_what_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of the code says so: its scores may differ."""
    with caplog.at_level(logging.WARNING):
        assert _load_pyfunc(described(tmp_path, VERSION)).deployment == SEMANTIC
        assert not caplog.records
        assert _load_pyfunc(described(tmp_path, "0.0.1")).deployment == SEMANTIC
    assert "ran on driftgate 0.0.1" in caplog.text
