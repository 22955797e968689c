"""Which texts are nearly the same as one that was kept before, in bounded memory.

MinHash (Broder 1997) of word shingles: the share of equal entries of two signatures estimates the
Jaccard similarity of their sets of shingles, with a standard error of at most 0.06 at 64 entries.
"""

from __future__ import annotations

import re

import mmh3
import numpy as np
import numpy.typing as npt

__all__ = ["NearDuplicates"]

_ENTRIES = 64
_SHINGLE_WORDS = 3
_WORDS = 400
"""More of a text does not count: enough to tell two apart, and a bound on the work."""
_PRIME = np.uint64((1 << 31) - 1)
_WORD = re.compile(r"\w+")

_rng = np.random.default_rng(20_240_917)
# h -> (a h + b) mod p with h, a < 2**31 stays below 2**63.
_FACTORS = _rng.integers(1, int(_PRIME), _ENTRIES, dtype=np.uint64)
_OFFSETS = _rng.integers(0, int(_PRIME), _ENTRIES, dtype=np.uint64)


class NearDuplicates:
    """The signatures of the last texts that were kept.

    Args:
        size: how many; the oldest is forgotten first. Each takes 256 bytes.
        similarity: from which on two texts count as the same; in (0, 1].
    """

    def __init__(self, size: int = 4096, similarity: float = 0.8) -> None:
        self._similarity = similarity
        self._signatures = np.zeros((size, _ENTRIES), dtype=np.uint32)
        self._kept = 0

    def __len__(self) -> int:
        return min(self._kept, len(self._signatures))

    def seen(self, text: str, space: str = "") -> bool:
        """Whether a text is nearly the same as one that was kept; if not, it is kept now.

        Args:
            text: of any length.
            space: texts of different spaces are never the same.
        """
        signature = _signature(text, space)
        equal = (self._signatures[: len(self)] == signature).mean(axis=1)
        if len(equal) and float(equal.max()) >= self._similarity:
            return True
        self._keep(signature)
        return False

    def keep(self, text: str, space: str = "") -> None:
        """Keep a text, whatever it is like."""
        self._keep(_signature(text, space))

    def _keep(self, signature: npt.NDArray[np.uint32]) -> None:
        self._signatures[self._kept % len(self._signatures)] = signature
        self._kept += 1


def _signature(text: str, space: str) -> npt.NDArray[np.uint32]:
    """Of the normalised text: its words in small letters; shape (64,)."""
    words = _WORD.findall(text.casefold())[:_WORDS] or [text]
    count = max(len(words) - _SHINGLE_WORDS + 1, 1)
    shingles = {" ".join([space, *words[at : at + _SHINGLE_WORDS]]) for at in range(count)}
    hashes = np.array([mmh3.hash(s, signed=False) for s in shingles], dtype=np.uint64) % _PRIME
    mixed = (hashes[:, None] * _FACTORS + _OFFSETS) % _PRIME
    signature: npt.NDArray[np.uint32] = mixed.min(axis=0).astype(np.uint32)
    return signature
