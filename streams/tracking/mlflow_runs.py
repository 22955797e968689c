"""Runs in MLflow: found by a tag, made where there is none, and what is written into them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from streams.tracking.drafts import (
    Aliases,
    Points,
    RunDraft,
    RunEnd,
    RunOperation,
    RunRef,
    RunStart,
    Side,
)
from streams.tracking.mlflow_models import ModelRegistry
from streams.tracking.mlflow_names import model_name

__all__ = ["Run", "Runs"]

log = logging.getLogger("driftgate.tracker")

MAX_METRICS = 1_000
"""A call, MLflow's own limit."""
MAX_PARAMS = 100
DEFAULT_HOP_MS = 10_000
"""Of a run that was not begun by its rollout; the one of the default policy."""
_KEY = "driftgate.run_key"
_STARTED = "driftgate.started_ms"
_HOP = "driftgate.hop_ms"
_VERSIONS = {Side.BLUE: "driftgate.blue_version", Side.GREEN: "driftgate.green_version"}


class Run(NamedTuple):
    """A run that is there."""

    id: str
    started_ms: int
    hop_ms: int

    def step(self, at_ms: int) -> int:
        """How many hops of log time since the one that it started in: a window's number."""
        return max(0, at_ms // self.hop_ms - self.started_ms // self.hop_ms)


class Runs:
    """The runs of an experiment.

    Args:
        client: of MLflow.
        registry: of models.
        experiment_id: that they are in.
        tags: of every run that is made.
    """

    def __init__(
        self,
        client: MlflowClient,
        registry: ModelRegistry,
        experiment_id: str,
        tags: dict[str, str],
    ) -> None:
        self._client = client
        self._registry = registry
        self._experiment_id = experiment_id
        self._tags = tags
        self._known: dict[str, Run] = {}

    def get(self, ref: RunRef, at_ms: int) -> Run:
        """The run, which is made, as of that time, if need be."""
        if ref.key in self._known:
            return self._known[ref.key]
        # A service may be called anything: the key goes into a filter as hex digits.
        key = blake2b(ref.key.encode(), digest_size=16).hexdigest()
        found = self._client.search_runs(
            [self._experiment_id],
            f"tags.`{_KEY}` = '{key}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        run = found[0] if found else self._client.create_run(
            self._experiment_id,
            start_time=at_ms,
            run_name=f"{ref.service} {ref.rollout_id or 'without a rollout'}"[:200],
            tags={
                _KEY: key,
                _STARTED: str(at_ms),
                _HOP: str(DEFAULT_HOP_MS),
                "driftgate.service": ref.service,
                "driftgate.rollout_id": ref.rollout_id or "",
                "mlflow.source.name": "driftgate tracker",
                "mlflow.source.type": "JOB",
                **self._tags,
            },
        )  # fmt: skip
        tags = run.data.tags
        self._known[ref.key] = Run(run.info.run_id, int(tags[_STARTED]), int(tags[_HOP]))
        return self._known[ref.key]

    def apply(self, operation: RunOperation) -> None:
        """Do something to a run."""
        match operation:
            case RunStart():
                self._start(operation)
            case RunDraft():
                tags = [RunTag(name, value) for name, value in operation.tags.items()]
                self._client.log_batch(self.get(operation.run, operation.at_ms).id, tags=tags)
            case Points():
                self.log([operation])
            case RunEnd():
                run = self.get(operation.run, operation.at_ms)
                self._client.set_terminated(run.id, operation.status, operation.at_ms)
            case Aliases():
                self._move(operation)

    def log(self, points: Sequence[Points]) -> None:
        """Write metrics, in as few calls as can be."""
        by_run: dict[RunRef, list[Points]] = {}
        for each in points:
            by_run.setdefault(each.run, []).append(each)
        for ref, several in by_run.items():
            run = self.get(ref, min(each.at_ms for each in several))
            metrics = [
                Metric(name, value, each.at_ms, run.step(each.at_ms))
                for each in several
                for name, value in each.values.items()
            ]
            for first in range(0, len(metrics), MAX_METRICS):
                self._client.log_batch(run.id, metrics=metrics[first : first + MAX_METRICS])

    def _start(self, start: RunStart) -> None:
        run_id = self.get(start.run, start.at_ms).id
        params = [Param(name, value) for name, value in start.params.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + MAX_PARAMS])
        if start.policy is not None:
            self._client.log_text(run_id, start.policy, "policy.yaml")
        tags = start.tags | {_STARTED: str(start.at_ms), _HOP: str(start.hop_ms)}
        for side, deployment in start.deployments.items():
            tags[_VERSIONS[side]] = self._registry.version(
                start.run.service, deployment, start.code_version, run_id
            )
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        self._known[start.run.key] = Run(run_id, start.at_ms, start.hop_ms)
        log.info("%s: rollout %s is run %s", start.run.service, start.run.rollout_id, run_id)

    def _move(self, aliases: Aliases) -> None:
        service = aliases.run.service
        tags = self._client.get_run(self.get(aliases.run, aliases.at_ms).id).data.tags
        versions = {side: tags[name] for side, name in _VERSIONS.items() if name in tags}
        if len(versions) < len(_VERSIONS):
            log.warning(
                "the aliases of %s stay where they are: how rollout %s began is not known",
                service, aliases.run.rollout_id,
            )  # fmt: skip
        elif self._registry.move(aliases, versions):
            sides = {"champion": aliases.champion, "blue": aliases.blue, "green": aliases.green}
            words = [f"{alias} is version {versions[side]}" if side else f"no {alias}"
                     for alias, side in sides.items()]  # fmt: skip
            log.info("%s: %s", model_name(service), ", ".join(words))
