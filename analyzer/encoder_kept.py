"""Vectors of the reference sentences, kept on disk: each start would spend a second on them."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analyzer.encoder import Encoder

__all__ = ["KeptEncoder"]

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 16


class KeptEncoder:
    """An encoder whose calls are kept in files: one a call, named after encoder and texts.

    A file that is missing, damaged, or cannot be read or written costs the time to compute it.

    Args:
        encoder: computes what is not kept.
        folder: made when it is not there.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder
        self.name = encoder.name
        self.dimension = encoder.dimension
        self.precision = encoder.precision
        self.fingerprint = encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See :class:`analyzer.encoder.Encoder`."""
        key = blake2b(self.fingerprint.encode(), digest_size=_DIGEST_BYTES)
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            key.update(len(data).to_bytes(8, "big") + data)
        path = self._folder / f"reference-{key.hexdigest()}.vectors"
        vectors = self._read(path, len(texts))
        if vectors is None:
            vectors = self._encoder.encode(texts)
            self._write(path, vectors)
        return vectors

    def _read(self, path: Path, count: int) -> npt.NDArray[np.float32] | None:
        """What was written there; None when it is not there or is not what was written."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest != _digest(data) or len(data) != count * self.dimension * 4:
            logger.warning("the vectors in %s are damaged; computing them again", path)
            return None
        return np.frombuffer(data, dtype="<f4").reshape(count, self.dimension).astype(np.float32)

    def _write(self, path: Path, vectors: npt.NDArray[np.float32]) -> None:
        data = vectors.astype("<f4").tobytes()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(prefix=path.name, dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_digest(data) + data)
                # Several workers may write it at once; each file is whole.
                Path(scratch).replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    Path(scratch).unlink()
                raise
        except OSError as error:
            logger.warning(
                "vectors cannot be kept in %s, the next start is slower: %s", path, error
            )


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
