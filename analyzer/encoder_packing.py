"""Several short texts in one row of a batch: what makes the fast encoders fast.

Attention costs a fixed price a row and head, which short texts pay in full, and rows of unlike
length are padded. So windows are packed into rows of :data:`ROW_TOKENS`, each window attends to
itself alone (its tokens carry its segment number), and the graph gives one vector a segment. In
polls of 64 short prompts that is 1.6 times as fast as sorting them by length; vectors are the same.

Source: Krell et al., Efficient Sequence Packing without Cross-contamination, 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from analyzer.encoder_batches import WIDTH_STEP, RunWindows, token_batches

__all__ = ["BUDGET_TOKENS", "ROW_TOKENS", "RunPacked", "pack", "packed"]

Tokens = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
RunPacked = Callable[[Tokens, Tokens, Tokens, Tokens], Vectors]
"""Token ids, positions and segments, each (rows, length), and the segment numbers (segments,), to
unit vectors (rows, segments, dimension). Segment 0 is padding."""

ROW_TOKENS = 64
"""Measured best for both short and long prompts: of 32, 64 and 128, 32 is 5 % faster for one-line
prompts and 10 % slower for paragraphs."""
BUDGET_TOKENS = 768
"""Of a batch. More leave the second-level cache, and are 10 % slower for paragraphs."""


def packed(run: RunPacked, dimension: int) -> RunWindows:
    """Embeds windows by packing them.

    Args:
        run: the graph.
        dimension: of its vectors.
    """

    def embed(windows: Sequence[Sequence[int]]) -> Vectors:
        vectors = np.empty((len(windows), dimension), dtype=np.float32)
        lengths = np.fromiter(map(len, windows), dtype=np.int64, count=len(windows))
        rows = pack(lengths, ROW_TOKENS)
        filled = np.array([int(lengths[row].sum()) for row in rows], dtype=np.int64)
        for batch in token_batches(filled, BUDGET_TOKENS):
            width = -(-int(filled[batch[-1]]) // WIDTH_STEP) * WIDTH_STEP
            ids, positions, segments = np.zeros((3, len(batch), width), dtype=np.int64)
            for place, row in enumerate(batch):
                start = 0
                for segment, window in enumerate(rows[row], start=1):
                    end = start + int(lengths[window])
                    ids[place, start:end] = windows[window]
                    positions[place, start:end] = np.arange(end - start)
                    segments[place, start:end] = segment
                    start = end
            numbers = np.arange(1, 1 + max(len(rows[row]) for row in batch), dtype=np.int64)
            result = run(ids, positions, segments, numbers)
            for place, row in enumerate(batch):
                vectors[rows[row]] = result[place, : len(rows[row])]
        return vectors

    return embed


def pack(lengths: npt.NDArray[np.int64], row_tokens: int) -> list[list[int]]:
    """Indices of windows by the row that they are in: best fit, the longest first.

    Args:
        lengths: tokens of each window, shape (n,).
        row_tokens: of a row; a longer window has a row of its own.

    >>> pack(np.array([10, 50, 30, 200, 20]), 64)
    [[3], [1], [2, 4, 0]]
    """
    rows: list[list[int]] = []
    # Rows by the tokens that are still free in them.
    free: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    for window in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[window])
        room = next((each for each in range(length, row_tokens + 1) if free[each]), None)
        if room is None:
            rows.append([window])
            if length < row_tokens:
                free[row_tokens - length].append(len(rows) - 1)
        else:
            row = free[room].pop()
            rows[row].append(window)
            free[room - length].append(row)
    return rows
