"""The model as an ONNX graph, made once from its weights and kept in a cache folder.

Pooling and L2 norm are inside the graph, so that serving needs neither torch nor transformers. The
export itself runs both, in a child process. The folder is named after the weights and the version
of the export, appears whole or not at all, and is checked against its checksums whenever it is
opened; one that is damaged is made again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from analyzer.encoder_batches import MAX_TOKENS
from analyzer.errors import ModelError
from analyzer.model import ModelSource, file_sha256

__all__ = ["EXPORT_VERSION", "ExportedModel", "default_cache_dir", "export_model"]

logger = logging.getLogger(__name__)

EXPORT_VERSION = 2
"""Part of the folder's name: raise it when the graph or the golden texts change."""

_CHILD_TIMEOUT_S = 240.0
"""The export takes 10 to 20 s, most of it the import of torch from a cold disk."""
_LOCK_TIMEOUT_S = _CHILD_TIMEOUT_S + 30.0
"""A worker that waits for another's export must outlast it."""
_GRAPH, _GOLDEN, _MANIFEST = "model.onnx", "golden.json", "manifest.json"


class ExportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that has passed its checksum, with what it takes to use it."""

    graph: Path
    tokenizer_folder: Path
    """Holds ``tokenizer.json``."""
    sha256: str
    """Of the weights that the graph was made from."""
    golden_texts: list[str]
    golden_vectors: npt.NDArray[np.float32]
    """What the reference computes for them, shape (texts, dimension)."""

    def fingerprint(self, precision: str) -> str:
        """See :class:`analyzer.encoder.Encoder`."""
        return f"{self.sha256}:{precision}:{MAX_TOKENS}"


def default_cache_dir() -> Path:
    """Where exports are kept unless configured: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftgate" / "models"


def export_model(source: ModelSource, cache_dir: Path) -> ExportedModel:
    """The exported graph, from the cache where it is there and whole.

    Safe when several processes call it at once: one exports, the others wait for it.

    Args:
        source: weights on this machine; see :func:`analyzer.model.resolve`.
        cache_dir: made when it is not there.

    Raises:
        ModelError: the cache cannot be written, or the export fails; the message says why.
    """
    if source.sha256 is None:
        raise ModelError(f"{source.location} is not on this machine; resolve it first")
    folder = cache_dir / f"minilm-{source.sha256[:16]}-v{EXPORT_VERSION}"
    found = _open(folder, source)
    if found is not None:
        return found
    cure = f"free or repair {cache_dir}, or configure another cache folder"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_LOCK_TIMEOUT_S):
            # Another worker may have made it while this one waited.
            found = _open(folder, source)
            if found is not None:
                return found
            if folder.exists():
                logger.warning("exported model in %s is damaged; making it again", folder)
                shutil.rmtree(folder)
            _make(source, folder)
    except Timeout as error:
        raise ModelError(
            f"another process holds {folder}.lock for {_LOCK_TIMEOUT_S:.0f} s; end it, or {cure}"
        ) from error
    except OSError as error:
        raise ModelError(f"the model cannot be exported to {folder} ({error}); {cure}") from error
    found = _open(folder, source)
    if found is None:
        raise ModelError(f"the model just exported to {folder} cannot be read back; {cure}")
    return found


def _open(folder: Path, source: ModelSource) -> ExportedModel | None:
    """The export in a folder; None when it is not there or is not what was written."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        for name in (_GRAPH, _GOLDEN):
            if file_sha256(folder / name) != manifest["sha256"][name]:
                return None
        golden = json.loads((folder / _GOLDEN).read_bytes())
        return ExportedModel(
            graph=folder / _GRAPH,
            tokenizer_folder=Path(source.location),
            sha256=str(source.sha256),
            golden_texts=golden["texts"],
            golden_vectors=np.asarray(golden["vectors"], dtype=np.float32),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(source: ModelSource, folder: Path) -> None:
    started = time.monotonic()
    logger.info("exporting the model once, to %s; takes about 15 s", folder)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        child = subprocess.run(
            [sys.executable, "-m", "analyzer.encoder_export_child", source.location, str(scratch)],
            capture_output=True,
            text=True,
            timeout=_CHILD_TIMEOUT_S,
            check=False,
            # The child must find this package also when it is run from its source folder.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if child.returncode:
            tail = " | ".join(child.stderr.strip().splitlines()[-3:])
            raise ModelError(
                f"the export of {source.location} failed with status {child.returncode}: {tail}; "
                "install the model again, or choose the encoder sentence-transformers"
            )
        sums = {name: file_sha256(scratch / name) for name in (_GRAPH, _GOLDEN)}
        manifest = {"sha256": sums, "weights": source.sha256, "version": EXPORT_VERSION}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        scratch.chmod(0o755)
        scratch.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"the export of {source.location} took longer than {_CHILD_TIMEOUT_S:.0f} s; "
            "try again when the machine is less busy, or choose the encoder sentence-transformers"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    logger.info("model exported in %.0f s", time.monotonic() - started)
