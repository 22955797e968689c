"""Vectors that are kept between starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from analyzer.encoder import HashingEncoder, Vectors
from analyzer.encoder_kept import KeptEncoder

TEXTS = ["Sort a list", "Bake bread", "half of a pair: \ud83d"]


class Counting(HashingEncoder):
    calls = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        return super().encode([text.encode("utf-8", "replace").decode() for text in texts])


def kept_by(encoder: HashingEncoder, folder: Path) -> Vectors:
    return KeptEncoder(encoder, folder).encode(TEXTS)


def test_a_second_start_computes_nothing(tmp_path: Path) -> None:
    """It has the same vectors, bit for bit, and they are its own."""
    first = kept_by(Counting(), tmp_path / "new")
    second = Counting()
    again = kept_by(second, tmp_path / "new")
    assert second.calls == 0
    assert again.tobytes() == first.tobytes()
    again[0, 0] = 7.0


def test_other_texts_and_other_encoders_are_computed(tmp_path: Path) -> None:
    """Neither the texts' order nor where one ends may be mistaken."""
    kept_by(Counting(), tmp_path)
    encoder = Counting()
    KeptEncoder(encoder, tmp_path).encode(TEXTS[::-1])
    KeptEncoder(encoder, tmp_path).encode(["".join(TEXTS)])
    assert encoder.calls == 2
    other = Counting()
    other.fingerprint = "another model"
    kept_by(other, tmp_path)
    assert other.calls == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and once."""
    right = kept_by(Counting(), tmp_path)
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "cut": content[:-4], "empty": b""}[damage])
    encoder = Counting()
    for _ in range(2):
        assert kept_by(encoder, tmp_path).tobytes() == right.tobytes()
    assert encoder.calls == 1
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_costs_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The vectors are computed at each start, and the log says why it is slow."""
    (tmp_path / "file").write_text("in the way")
    assert len(kept_by(Counting(), tmp_path / "file" / "cache")) == len(TEXTS)
    assert "cannot be kept" in caplog.text
