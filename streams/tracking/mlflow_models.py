"""Deployments as versions of a registered model, and the aliases that say which one serves."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import msgspec
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from schemas.rollout import Deployment
from streams.tracking.drafts import Aliases, Side
from streams.tracking.mlflow_names import model_name

__all__ = ["ModelRegistry"]

_INPUTS = Schema(
    [
        ColSpec(DataType.string, "prompt"),
        ColSpec(DataType.string, "domain", required=False),
        ColSpec(DataType.string, "context", required=False),
    ]
)
_AT = "driftgate.at_ms"
_CONFIG = "driftgate.config"


class ModelRegistry:
    """The registered models.

    Args:
        client: of MLflow.
        loader_module: the module whose ``_load_pyfunc`` makes a deployment of its description.
        requirements: what it needs to be installed.
    """

    def __init__(self, client: MlflowClient, loader_module: str, requirements: list[str]) -> None:
        self._client = client
        self._loader_module = loader_module
        self._requirements = requirements

    def version(self, service: str, deployment: Deployment, code_version: str, run_id: str) -> str:
        """The version that is this deployment; made where there is none.

        Args:
            service: whose.
            deployment: the configuration.
            code_version: that ran it.
            run_id: the run that a new version's files are kept with.
        """
        name = model_name(service)
        description = {
            "service": service,
            "code_version": code_version,
            "deployment": msgspec.to_builtins(deployment),
        }
        document = msgspec.json.encode(description)
        config = blake2b(document, digest_size=8).hexdigest()
        self._make_model(name, service)
        found = self._client.search_model_versions(
            f"name = '{name}' and tags.`{_CONFIG}` = '{config}'"
        )
        if found:
            return str(min(int(version.version) for version in found))
        folder = f"deployments/{deployment.name}-{config}"
        self._upload(document, run_id, folder)
        root = self._client.get_run(run_id).info.artifact_uri
        made = self._client.create_model_version(
            name,
            f"{root}/{folder}",
            run_id,
            description=f"{deployment.name}: {deployment.kind}, driftgate {code_version}",
            tags={
                _CONFIG: config,
                "driftgate.deployment": deployment.name,
                "driftgate.kind": deployment.kind.value,
                "driftgate.semantic_weight": f"{deployment.semantic_weight:g}",
                "driftgate.code_version": code_version,
            },
        )
        return str(made.version)

    def _make_model(self, name: str, service: str) -> None:
        try:
            self._client.create_registered_model(
                name,
                tags={"driftgate.service": service},
                description=f"How prompts of {service} are analysed. Aliases: blue serves, green "
                "is rolled out, champion is what to load.",
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _upload(self, document: bytes, run_id: str, folder: str) -> None:
        with tempfile.TemporaryDirectory(prefix="driftgate-model-") as parent:
            data = Path(parent) / "deployment.json"
            data.write_bytes(document)
            target = Path(parent) / "model"
            with warnings.catch_warnings():
                # That there is no example: to make one, a version would have to compute.
                warnings.simplefilter("ignore", UserWarning)
                mlflow.pyfunc.save_model(
                    target,
                    loader_module=self._loader_module,
                    data_path=str(data),
                    pip_requirements=self._requirements,
                    signature=ModelSignature(inputs=_INPUTS),
                )
            self._client.log_artifacts(run_id, str(target), folder)

    def move(self, aliases: Aliases, versions: Mapping[Side, str]) -> bool:
        """Point the aliases of a service.

        Args:
            aliases: where to.
            versions: of the two sides of its run.

        Returns:
            Whether they were; not if something later has pointed them already.
        """
        name = model_name(aliases.run.service)
        model: Any = self._client.get_registered_model(name)
        if int(model.tags.get(_AT, "0")) > aliases.at_ms:
            return False
        wanted: dict[str, Side | None] = {
            "champion": aliases.champion,
            "blue": aliases.blue,
            "green": aliases.green,
        }
        for alias, side in wanted.items():
            if side is not None:
                self._client.set_registered_model_alias(name, alias, versions[side])
            elif alias in model.aliases:
                self._client.delete_registered_model_alias(name, alias)
        if aliases.verdict is not None:
            tags = {"driftgate.verdict": aliases.verdict, "driftgate.reason": aliases.reason}
            for key, value in tags.items():
                self._client.set_model_version_tag(name, versions[Side.GREEN], key, value)
        # Last: a crash in between does all of it again.
        self._client.set_registered_model_tag(name, _AT, str(aliases.at_ms))
        return True
