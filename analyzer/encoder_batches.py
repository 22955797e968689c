"""From texts to token windows and back: what all model encoders share; and batches by length.

Batches hold windows of like length, because padding is computed, too: at 32 prompts a batch it is
59 % of the work in order of arrival, and 5 % in order of length.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analyzer.errors import EncoderError, ModelError

__all__ = [
    "BATCH_COST_TOKENS",
    "BUDGET_TOKENS",
    "MAX_TOKENS",
    "MAX_WINDOWS",
    "WIDTH_STEP",
    "Run",
    "RunWindows",
    "WindowEncoder",
    "padded",
    "token_batches",
]

MAX_TOKENS = 256
"""Of a window, with both special tokens: what the model was evaluated with (it was trained with
128, and has 512 positions)."""
MAX_WINDOWS = 8
"""Of a text: all of it up to 2,032 tokens (about 9,000 characters of English). A longer one is
represented by as many windows, spread evenly from its beginning to its end, so that one prompt
costs as much as 130 ordinary ones at most, and not 1,300."""
BUDGET_TOKENS = 1024
"""Padded tokens of a batch, at most. Measured best between 512 and 1,024: smaller ones leave the
matrix units idle, larger ones leave the second-level cache."""
BATCH_COST_TOKENS = 40
"""What a batch costs beside its tokens, in tokens: 1.5 ms, with a token at 38 us."""
WIDTH_STEP = 8
"""Widths are multiples of it: odd ones take up to a third longer a token, and every new shape is
compiled once, for 20 to 40 ms."""

Tokens = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Run = Callable[[Tokens, Tokens], Vectors]
"""Token ids and attention mask, each (rows, length), to unit vectors (rows, dimension). Padding has
the id 0."""
RunWindows = Callable[[Sequence[Sequence[int]]], Vectors]
"""Windows of token ids, of any lengths and in any order, to their unit vectors, in that order."""


class WindowEncoder:
    """Tokenises once, cuts long texts into windows, has them embedded, and pools them.

    Args:
        folder: of the model; its ``tokenizer.json`` is used.

    Raises:
        ModelError: a tokenizer that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        # Read when the library is first used: its own threads would take the other core, and
        # warn in every child process.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer  # noqa: PLC0415  # as the comment says

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path} cannot be read ({error}); install the model again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        cls, sep = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        if cls is None or sep is None:
            raise ModelError(f"{path} has no [CLS] and [SEP]: not a BERT tokenizer")
        self._cls, self._sep = cls, sep

    def encode(self, texts: Sequence[str], run: RunWindows, dimension: int) -> Vectors:
        """Vectors of unit norm, shape (texts, dimension).

        Raises:
            EncoderError: vectors that are not finite or not of that shape.
        """
        windows: list[list[int]] = []
        owners: list[int] = []
        for row, encoding in enumerate(
            self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ):
            for ids in _windows(encoding.ids):
                windows.append([self._cls, *ids, self._sep])
                owners.append(row)
        result = run(windows)
        if result.shape != (len(windows), dimension) or not np.isfinite(result).all():
            raise EncoderError(
                f"the model gave {result.shape} for {(len(windows), dimension)}, or values that "
                "are not finite"
            )
        vectors = np.zeros((len(texts), dimension), dtype=np.float32)
        # A window counts by its tokens, so that a short last one does not outweigh.
        lengths = np.fromiter(map(len, windows), dtype=np.float32, count=len(windows))
        np.add.at(vectors, np.asarray(owners, dtype=np.intp), result * lengths[:, None])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (norms > 0).all():
            raise EncoderError("the model gave a zero vector")
        vectors /= norms
        return vectors


def padded(run: Run, dimension: int, budget_tokens: int = BUDGET_TOKENS) -> RunWindows:
    """Embeds windows in batches by length.

    Args:
        run: the model.
        dimension: of its vectors.
        budget_tokens: padded tokens a batch; a single longer window is a batch of its own.
    """

    def embed(windows: Sequence[Sequence[int]]) -> Vectors:
        vectors = np.empty((len(windows), dimension), dtype=np.float32)
        lengths = np.fromiter(map(len, windows), dtype=np.int64, count=len(windows))
        for batch in token_batches(lengths, budget_tokens):
            width = -(-int(lengths[batch[-1]]) // WIDTH_STEP) * WIDTH_STEP
            ids = np.zeros((len(batch), width), dtype=np.int64)
            for row, window in enumerate(batch):
                ids[row, : lengths[window]] = windows[window]
            mask = (np.arange(width) < lengths[batch][:, None]).astype(np.int64)
            vectors[batch] = run(ids, mask)
        return vectors

    return embed


def token_batches(
    lengths: npt.NDArray[np.int64], budget_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Indices in batches by length, so that the least is computed in all.

    The cost of a batch is its padded tokens and :data:`BATCH_COST_TOKENS`; the cheapest partition
    of the windows in order of length is found by dynamic programming (1 us a window and batch
    size). In polls of 64 prompts it computes a tenth less than filling one batch after the other.

    Args:
        lengths: tokens of each window, shape (n,).
        budget_tokens: padded tokens a batch; a longer window is alone in its batch.

    Returns:
        Index arrays, each sorted by length, that hold every index once.

    >>> [batch.tolist() for batch in token_batches(np.array([9, 2, 3, 2, 200]), 512)]
    [[1, 3, 2, 0], [4]]
    """
    order = np.argsort(lengths, kind="stable")
    widths = -(-lengths[order] // WIDTH_STEP) * WIDTH_STEP
    count = len(order)
    cost = np.zeros(count + 1)
    first = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        width = int(widths[end - 1])
        lowest = max(0, end - max(1, budget_tokens // width))
        costs = cost[lowest:end] + np.arange(end - lowest, 0, -1) * width + BATCH_COST_TOKENS
        best = int(costs.argmin())
        cost[end], first[end] = costs[best], lowest + best
    batches = []
    end = count
    while end:
        batches.append(order[first[end] : end])
        end = int(first[end])
    return batches[::-1]


def _windows(ids: list[int]) -> list[list[int]]:
    """A text's tokens in windows; see :data:`MAX_WINDOWS`."""
    size = MAX_TOKENS - 2
    count = -(-len(ids) // size)
    if count <= 1:
        return [ids]
    if count <= MAX_WINDOWS:
        # Windows of like length: a last one of three tokens would be a poor summary of them.
        edges = np.linspace(0, len(ids), count + 1).round().astype(int)
        return [ids[start:end] for start, end in pairwise(edges)]
    starts = np.linspace(0, len(ids) - size, MAX_WINDOWS).round().astype(int)
    return [ids[start : start + size] for start in starts]
