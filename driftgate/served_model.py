"""A deployment as MLflow loads it, from `models:/driftgate-SERVICE@champion`.

It analyses as a worker of this version does: the same checks, rules, model and blend. The model's
weights are not in MLflow; they are found as a worker finds them (DRIFTGATE_MODEL, packages, hub).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from analyzer.pipeline import Accepted, Incoming, Semantic, admit, enriched
from driftgate.settings import analyzer_settings, kafka_settings
from schemas.prompts import PromptSubmitted, SourcePosition
from schemas.rollout import Deployment, DeploymentKind, Phase, RolloutState
from schemas.version import VERSION

if TYPE_CHECKING:
    from analyzer.semantic import Model

__all__ = ["DeploymentModel"]

log = logging.getLogger("driftgate")

_COLUMNS = ("prompt", "domain", "context")


class DeploymentModel:
    """Analyses prompts, without Kafka.

    Args:
        service: that it is of.
        deployment: what it computes.
    """

    def __init__(self, service: str, deployment: Deployment) -> None:
        self.deployment = deployment
        self._settings = analyzer_settings(
            os.environ, kafka_settings(os.environ), service=service, worker_id="mlflow"
        )
        self._state = RolloutState(service=service, revision=0, phase=Phase.IDLE, blue=deployment)
        self._model: Model | None = None

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[Any]:  # noqa: ARG002 - MLflow's signature
        """The analysis of each prompt.

        Args:
            model_input: a DataFrame, or a list of mappings, with a column ``prompt`` and perhaps
                ``domain`` and ``context``, as in a submitted prompt.
            params: not used.

        Returns:
            For each, ``accepted`` true with score, path, rules and semantic, as in an enriched
            event; or ``accepted`` false with a code and a reason.

        Raises:
            analyzer.errors.ModelError: the deployment is semantic, and its model cannot be had.
        """
        rows = model_input if isinstance(model_input, list) else model_input.to_dict("records")
        began = time.perf_counter()
        admitted = [
            admit(_incoming(number, row), self._state, self._settings.limits)
            for number, row in enumerate(rows)
        ]
        rules_s = time.perf_counter() - began
        accepted = [each for each in admitted if isinstance(each, Accepted)]
        semantic = iter(self._score([each.prompt for each in accepted]))
        results: list[Any] = []
        for each in admitted:
            if not isinstance(each, Accepted):
                refusal = {"accepted": False, "code": each.code.value, "reason": each.reason}
                results.append(refusal)
                continue
            event = enriched(
                each,
                next(semantic),
                service=self._settings.service,
                worker_id="mlflow",
                rules_seconds=rules_s,
                processing_seconds=time.perf_counter() - began,
            )
            results.append(
                {
                    "accepted": True,
                    "score": event.score,
                    "path": event.path.value,
                    "deployment": self.deployment.name,
                    "rules": msgspec.to_builtins(event.rules),
                    "semantic": msgspec.to_builtins(event.semantic),
                }
            )
        return results

    def _score(self, prompts: Sequence[PromptSubmitted]) -> list[Semantic | None]:
        if self.deployment.kind is not DeploymentKind.SEMANTIC or not prompts:
            return [None] * len(prompts)
        if self._model is None:
            # Not before it is needed: a model of rules needs no weights.
            from analyzer.loading import load_model  # noqa: PLC0415

            self._model = load_model(self._settings)
        began = time.perf_counter()
        scorer = self._model.scorer
        several = [scorer.texts_to_embed(prompt) for prompt in prompts]
        flat = self._model.encoder.encode([text for texts in several for text in texts])
        ends = np.cumsum([len(texts) for texts in several])
        vectors = [list(rows) for rows in np.split(flat, ends[:-1])]
        embed_s = time.perf_counter() - began
        found = scorer.score_prompts(prompts, vectors, [False] * len(prompts))
        semantic_s = time.perf_counter() - began
        return [Semantic(scores, None, embed_s, semantic_s) for scores in found]


def _incoming(number: int, row: dict[str, Any]) -> Incoming:
    # A missing cell of a DataFrame is NaN.
    fields = {name: row[name] for name in _COLUMNS if isinstance(row.get(name), str)}
    return Incoming(SourcePosition("mlflow", 0, number), 0, None, msgspec.json.encode(fields))


def _load_pyfunc(data_path: str) -> DeploymentModel:
    """What MLflow calls to load a version.

    Args:
        data_path: of the description that was registered.
    """
    description = msgspec.json.decode(Path(data_path).read_bytes())
    if description["code_version"] != VERSION:
        log.warning(
            "this deployment ran on driftgate %s, and is loaded by %s: scores may differ",
            description["code_version"],
            VERSION,
        )
    return DeploymentModel(
        description["service"], msgspec.convert(description["deployment"], Deployment)
    )
