"""The file of a drift reference: what was written is read, and what is not one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.drift import DriftFeature
from schemas.drift_reference import (
    ReferenceFile,
    load_reference,
    map_id,
    reference_contradictions,
    with_id,
)
from schemas.errors import DriftReferenceError
from tests.support.references import reference_file

CURE = "make it with `driftgate drift calibrate PROMPTS.jsonl --out FILE`"


def written(folder: Path, content: bytes) -> Path:
    """A file with some content."""
    path = folder / "reference.json"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    """Why a file is refused; it names the file and says what to do."""
    with pytest.raises(DriftReferenceError) as caught:
        load_reference(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(CURE)
    return message


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """To the last bit, also when it was formatted for people."""
    file = reference_file()
    plain = msgspec.json.encode(file)
    for content in (plain, msgspec.json.format(plain, indent=1)):
        assert load_reference(written(tmp_path, content)) == file
    assert file.centroid_vectors().shape == (12, 384)
    assert file.reference.fourier.means().shape == (file.reference.fourier.count,)
    assert file.reference.feature(DriftFeature.RELEVANCE) is not None
    assert file.reference.feature(DriftFeature.LATENCY) is None


def test_the_id_is_of_the_content() -> None:
    """The same content has the same id; any other has another."""
    file = reference_file()
    assert with_id(file) == file
    changed = msgspec.structs.replace(
        file, reference=msgspec.structs.replace(file.reference, source="others")
    )
    assert with_id(changed).reference.id != file.reference.id


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the system's reason."""
    assert "cannot be read: [Errno 2]" in refusal(tmp_path / "reference.json")
    assert "cannot be read: [Errno 21]" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"id": 1}',
        b"[" * 100_000,
        msgspec.json.encode(reference_file())[:-40],
    ],
    ids=["empty", "binary", "list", "stranger", "deep", "cut short"],
)
def test_what_is_no_reference_is_refused(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no JSON, JSON of another shape, and half a file."""
    assert "is no drift reference" in refusal(written(tmp_path, content))


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    """Fields that this version does not know, or that it misses, are named."""
    whole = msgspec.json.decode(msgspec.json.encode(reference_file()))
    newer = whole | {"layout": 2}
    assert "unknown field `layout`" in refusal(written(tmp_path, msgspec.json.encode(newer)))
    older = {"reference": {k: v for k, v in whole["reference"].items() if k != "fourier"}}
    assert "missing required field" in refusal(
        written(tmp_path, msgspec.json.encode(whole | older))
    )


def _reference(**changes: Any) -> Callable[[ReferenceFile], ReferenceFile]:
    return lambda file: msgspec.structs.replace(
        file, reference=msgspec.structs.replace(file.reference, **changes)
    )


def _fourier(mean: bytes) -> Callable[[ReferenceFile], ReferenceFile]:
    fourier = msgspec.structs.replace(reference_file().reference.fourier, mean=mean)
    return _reference(fourier=fourier)


COUNT = reference_file().reference.fourier.count
DAMAGES: dict[str, tuple[Callable[[ReferenceFile], ReferenceFile], str]] = {
    "a feature twice": (
        _reference(features=reference_file().reference.features * 2),
        "reference.features: a feature comes twice",
    ),
    "too few means": (_fourier(bytes(8)), f"8 bytes are not {COUNT} float32 numbers"),
    "NaN": (
        _fourier(np.full(COUNT, np.nan, "<f4").tobytes()),
        "reference.fourier.mean: a number must be finite",
    ),
    "too long": (
        _fourier(np.full(COUNT, 1.0, "<f4").tobytes()),
        "its norm is not below 1",
    ),
    "no centroid": (
        lambda file: msgspec.structs.replace(file, centroids=b""),
        "centroids: 0 bytes are no vectors of 384",
    ),
    "half a centroid": (
        lambda file: msgspec.structs.replace(file, centroids=file.centroids[:-4]),
        "bytes are no vectors of 384",
    ),
    "another dimension": (_reference(dimension=383), "bytes are no vectors of 383"),
    "centroids of other norm": (
        lambda file: msgspec.structs.replace(file, centroids=np.ones(384, "<f4").tobytes()),
        "centroids: a vector is not of unit norm",
    ),
    "centroids that are NaN": (
        lambda file: msgspec.structs.replace(
            file, centroids=np.full(384, np.nan, "<f4").tobytes()
        ),
        "centroids: a vector is not of unit norm",
    ),
    "another model's name": (
        _reference(model="other"),
        "reference.id: does not fit the content: the file was changed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_reference_is_refused(tmp_path: Path, damage: str) -> None:
    """Each damage is named with its key: nothing is measured against what cannot be (M26)."""
    change, words = DAMAGES[damage]
    content = msgspec.json.encode(change(reference_file()))
    assert words in refusal(written(tmp_path, content))


def test_a_good_reference_has_no_contradictions() -> None:
    """What the calibration makes, a policy may hold."""
    assert reference_contradictions(reference_file().reference) == []


def test_a_map_is_named_by_all_that_it_is_made_of() -> None:
    """Two names are equal only when the numbers mean the same."""
    centroids = reference_file().centroid_vectors()
    named = {
        map_id("model", centroids, seed=0, count=512, bandwidth=1.0),
        map_id("other", centroids, seed=0, count=512, bandwidth=1.0),
        map_id("model", centroids[:3], seed=0, count=512, bandwidth=1.0),
        map_id("model", centroids, seed=1, count=512, bandwidth=1.0),
        map_id("model", centroids, seed=0, count=256, bandwidth=1.0),
        map_id("model", centroids, seed=0, count=512, bandwidth=1.1),
    }
    assert len(named) == 6
    again = map_id("model", np.asfortranarray(centroids), seed=0, count=512, bandwidth=1.0)
    assert again in named
