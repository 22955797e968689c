"""A rollout as somebody finds it in MLflow, by MLflow's own API."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from streams.tracking.mlflow_names import model_name
from tests.support.mlflow_stores import client_of

__all__ = ["RolloutInMlflow", "aliases_of", "read_back"]


class RolloutInMlflow(NamedTuple):
    """What there is of one rollout."""

    run: Any
    """MLflow's run: ``info``, ``data.params``, ``data.metrics``, ``data.tags``."""
    artifacts: list[str]
    traces: list[Any]
    """Those that are linked to the run, with their spans."""
    assessments: list[Any]
    """Feedback on them."""

    @property
    def kept(self) -> Counter[str]:
        """How many traces there are, by why they were kept."""
        return Counter(trace.info.tags["driftgate.kept"] for trace in self.traces)


def aliases_of(uri: str, service: str) -> dict[str, str]:
    """Which deployment each alias of a service's registered model names now."""
    client, name = client_of(uri), model_name(service)
    aliases = client.get_registered_model(name).aliases
    return {
        alias: client.get_model_version(name, str(version)).tags["driftgate.deployment"]
        for alias, version in sorted(aliases.items())
    }


def read_back(uri: str, rollout_id: str, experiment: str = "driftgate") -> RolloutInMlflow:
    """All that MLflow has of a rollout.

    Args:
        uri: of a database or a server.
        rollout_id: as the control events have it.
        experiment: that the tracker writes to.
    """
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None, f"no experiment {experiment!r}"
    where = [found.experiment_id]
    (run,) = client.search_runs(where, f"tags.`driftgate.rollout_id` = '{rollout_id}'")
    traces: list[Any] = []
    token = None
    while True:
        page = client.search_traces(
            locations=where,
            filter_string=f"attributes.run_id = '{run.info.run_id}'",
            max_results=200,
            page_token=token,
        )
        traces += page
        token = page.token
        if not token:
            break
    return RolloutInMlflow(
        run,
        sorted(file.path for file in client.list_artifacts(run.info.run_id)),
        traces,
        [said for trace in traces for said in trace.info.assessments],
    )
