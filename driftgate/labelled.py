"""Reads labelled prompts for `driftgate validate` and `driftgate calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from analyzer.encoder import Encoder
from analyzer.labels import LabelledPrompts
from driftgate.console_io import err
from driftgate.errors import DriftgateError

__all__ = ["embed", "in_batches", "read_labelled"]

_BATCH = 512


def read_labelled(path: Path) -> LabelledPrompts:
    """The prompts of a JSONL file with their `rating` (a number, or one a rater) or `domain`.

    Raises:
        DriftgateError: a row that is neither; names its line.
    """
    texts: list[str] = []
    domains: list[str] = []
    ratings: list[list[float]] = []
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                try:
                    prompt, label = _row(json.loads(text))
                except (ValueError, AttributeError, TypeError) as error:
                    raise DriftgateError(f"{path}:{line}: {error}") from error
                texts.append(prompt)
                if isinstance(label, str):
                    domains.append(label)
                else:
                    ratings.append(label)
    if domains and ratings:
        raise DriftgateError(f"{path}: some rows have a rating and others only a domain")
    if not texts:
        raise DriftgateError(f"{path}: has no rows")
    return LabelledPrompts(texts=texts, domains=domains or None, ratings=ratings or None)


def _row(row: dict[str, Any]) -> tuple[str, str | list[float]]:
    prompt = row.get("prompt", row.get("text"))
    if not isinstance(prompt, str):
        raise TypeError("no text in `prompt` or `text`")
    rating = row.get("rating")
    if rating is not None:
        given = rating if isinstance(rating, list) else [rating]
        return prompt, [float(value) for value in given]
    domain = row.get("domain")
    if isinstance(domain, str):
        return prompt, domain
    raise ValueError("neither a `rating` nor a `domain`")


def in_batches(texts: list[str]) -> Any:
    """The texts in batches, with progress."""
    for start in track(range(0, len(texts), _BATCH), "embedding", console=err):
        yield texts[start : start + _BATCH]


def embed(texts: list[str], encoder: Encoder) -> npt.NDArray[np.float32]:
    """The vectors of the texts, shape (n, dimension), with progress."""
    return np.concatenate([encoder.encode(batch) for batch in in_batches(texts)])
