"""Curated cases as an evaluation dataset of MLflow (M42, M43)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from driftgate.errors import DriftgateError
from schemas.feedback import CuratedCase
from streams.settings import TrackerSettings

__all__ = ["dataset_record", "export_to_mlflow"]

_PATIENCE = {
    # Its own defaults try for minutes, which a person that waits takes for a standstill.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_CHUNK = 200
"""Records a request: some hundred kilobytes."""


def dataset_record(case: CuratedCase) -> dict[str, Any]:
    """A case as a record: the prompt as input, scores as outputs, feedback as expectation.

    MLflow takes records of equal inputs for one, and updates it.
    """
    at = datetime.fromtimestamp(case.curated_ms / 1000, UTC).isoformat(timespec="seconds")
    inputs = {"prompt": case.prompt} | ({"domain": case.domain} if case.domain else {})
    outputs = {
        "score": case.score,
        "rules_score": case.rules_score,
        "semantic_score": case.semantic_score,
        "relevance": case.relevance,
        "coherence": case.coherence,
        "centroid_distance": case.centroid_distance,
    }
    tags = {
        "driftgate.event_id": case.id,
        "driftgate.service": case.service,
        "driftgate.reasons": ",".join(case.reasons),
        "driftgate.arm": case.arm.value,
        "driftgate.deployment": case.deployment,
        "driftgate.rollout_id": case.rollout_id or "",
        "driftgate.path": case.path.value,
        "driftgate.curated_at": at,
    }
    record = {"inputs": inputs, "outputs": outputs, "tags": tags,
              "source": {"source_type": "CODE", "source_data": {}}}  # fmt: skip
    if case.feedback is not None:
        said = {"kind": case.feedback.kind.value, "value": case.feedback.value}
        if case.feedback.comment:
            said["comment"] = case.feedback.comment
        record["expectations"] = {"feedback": said}
        record["source"] = {"source_type": "HUMAN", "source_data": {}}
    return record


def export_to_mlflow(
    cases: Sequence[CuratedCase],
    settings: TrackerSettings,
    *,
    dataset: str,
    progress: Callable[[int], None] = lambda _: None,
) -> str:
    """Put cases into a dataset, which is made where it is not there.

    Doing it again changes nothing but what is new.

    Args:
        cases: in any order.
        settings: where MLflow is, and the experiment, which is made where it is not there.
        dataset: its name.
        progress: told the number of cases so far.

    Returns:
        MLflow's id of the dataset.

    Raises:
        DriftgateError: MLflow does not take it, or is away.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: PLC0415 - it takes seconds
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from mlflow.genai import datasets  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - MLflow's own stores let it through

    try:
        mlflow.set_tracking_uri(settings.uri)
        found = mlflow.get_experiment_by_name(settings.experiment)
        experiment_id = found.experiment_id if found else mlflow.create_experiment(
            settings.experiment, settings.artifact_location
        )  # fmt: skip
        try:
            target = datasets.get_dataset(name=dataset)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            target = datasets.create_dataset(
                name=dataset, experiment_id=experiment_id, tags={"source": "driftgate"}
            )
        for start in range(0, len(cases), _CHUNK):
            chunk = cases[start : start + _CHUNK]
            target.merge_records([dataset_record(case) for case in chunk])
            progress(start + len(chunk))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0][:500]
        raise DriftgateError(
            f"MLflow at {settings.shown_uri} did not take dataset {dataset!r}: {reason}. See "
            "that it runs, and that DRIFTGATE_MLFLOW_URI is right; the same command goes on where "
            "it ended"
        ) from error
    return str(target.dataset_id)
