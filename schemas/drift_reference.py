"""The file that holds a drift reference: made by `driftgate drift calibrate`, read by everybody."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.drift import DriftReference
from schemas.errors import DriftReferenceError

__all__ = [
    "ReferenceFile",
    "load_reference",
    "map_id",
    "reference_contradictions",
    "with_id",
]

_CURE = "make it with `driftgate drift calibrate PROMPTS.jsonl --out FILE`"
_NORM_TOLERANCE = 1e-3


class ReferenceFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reference, and what only analyzers need of it."""

    reference: DriftReference
    centroids: Annotated[
        bytes, Meta(description="float32, little-endian, of unit norm; one row a centroid.")
    ]

    def centroid_vectors(self) -> npt.NDArray[np.float32]:
        """The centroids, shape (centroids, dimension)."""
        return np.frombuffer(self.centroids, "<f4").reshape(-1, self.reference.dimension)


def map_id(
    model: str, centroids: npt.NDArray[np.float32], *, seed: int, count: int, bandwidth: float
) -> str:
    """Names a way to measure that no reference has: equal exactly when the numbers mean the same.

    Args:
        model: fingerprint of the model.
        centroids: of shape (centroids, dimension).
        seed: of the Fourier map.
        count: of its features.
        bandwidth: of its kernel.
    """
    text = f"{model}|{seed}|{count}|{bandwidth!r}|{centroids.shape}|"
    data = np.ascontiguousarray(centroids, "<f4").tobytes()
    return hashlib.sha256(text.encode() + data).hexdigest()[:16]


def with_id(file: ReferenceFile) -> ReferenceFile:
    """The same file, its reference named by all that it holds."""
    blank = msgspec.structs.replace(file.reference, id="0" * 16)
    data = msgspec.json.encode(msgspec.structs.replace(file, reference=blank))
    named = msgspec.structs.replace(blank, id=hashlib.sha256(data).hexdigest()[:16])
    return msgspec.structs.replace(file, reference=named)


def load_reference(path: Path) -> ReferenceFile:
    """Read a reference.

    Raises:
        DriftReferenceError: it cannot be read or used; names the file, the reason and the cure.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DriftReferenceError(f"{path}: cannot be read: {error}; {_CURE}") from error
    try:
        found = msgspec.json.decode(data, type=ReferenceFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DriftReferenceError(f"{path}: is no drift reference: {error}; {_CURE}") from error
    for key, reason in _contradictions(found):
        raise DriftReferenceError(f"{path}: {key}: {reason}; {_CURE}")
    return found


def reference_contradictions(reference: DriftReference) -> list[tuple[str, str]]:
    """What is wrong with a reference that the types cannot say, as (key, reason)."""
    found = []
    names = [each.feature for each in reference.features]
    if len(set(names)) != len(names):
        found.append(("features", "a feature comes twice"))
    fourier = reference.fourier
    if len(fourier.mean) != 4 * fourier.count:
        reason = f"{len(fourier.mean)} bytes are not {fourier.count} float32 numbers"
        return [*found, ("fourier.mean", reason)]
    means = fourier.means().tolist()
    if not all(math.isfinite(mean) for mean in means):
        found.append(("fourier.mean", "a number must be finite"))
    elif sum(mean * mean for mean in means) >= 1.0:
        # The features of each prompt have norm 1, so their mean is shorter unless all are equal.
        found.append(("fourier.mean", "its norm is not below 1: no mean of different prompts"))
    return found


def _contradictions(file: ReferenceFile) -> list[tuple[str, str]]:
    found = [(f"reference.{k}", why) for k, why in reference_contradictions(file.reference)]
    row = 4 * file.reference.dimension
    if not file.centroids or len(file.centroids) % row:
        reason = f"{len(file.centroids)} bytes are no vectors of {file.reference.dimension}"
        return [*found, ("centroids", reason)]
    squares = np.einsum("ij,ij->i", *[file.centroid_vectors()] * 2)
    # A comparison with NaN is false, so this also finds what is not finite.
    if not (np.abs(squares - 1.0) <= _NORM_TOLERANCE).all():
        found.append(("centroids", "a vector is not of unit norm"))
    if not found and with_id(file).reference.id != file.reference.id:
        found.append(("reference.id", "does not fit the content: the file was changed"))
    return found
