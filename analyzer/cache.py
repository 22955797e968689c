"""Vectors that need not be computed again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from threading import Lock

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from schemas.log import SharedCache

__all__ = ["ENTRY_OVERHEAD_BYTES", "EmbeddingCache", "cache_key", "normalise"]

Vector = npt.NDArray[np.float32]

ENTRY_OVERHEAD_BYTES = 340
"""Of an entry beside its numbers: key, array object, and its places in three dictionaries
(measured with tracemalloc over 20,000 entries)."""

_SPECIAL = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK)\]")
_WHITE = re.compile(r"[ \t\r\n]+")


class EmbeddingCache:
    """The least recently used vectors, up to a number of bytes. Exact; safe between threads.

    Args:
        max_bytes: of vectors, keys and bookkeeping; 0 keeps nothing.
        fingerprint: of the encoder: model checksum, precision and token limit. Vectors of two
            encoders never stand for each other.
    """

    def __init__(self, max_bytes: int, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._entries: LRUCache[bytes, Vector] = LRUCache(max_bytes, getsizeof=_size)
        self._lock = Lock()
        self._hits = 0
        self._misses = 0
        self._added = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return int(self._entries.currsize)

    @property
    def max_bytes(self) -> int:
        """Bytes that may be in use."""
        return int(self._entries.maxsize)

    @property
    def hits(self) -> int:
        """Texts found so far."""
        return self._hits

    @property
    def misses(self) -> int:
        """Texts not found so far."""
        return self._misses

    @property
    def evictions(self) -> int:
        """Entries given up so far to make room."""
        return self._added - len(self._entries)

    @property
    def shared(self) -> SharedCache:
        """The level behind this one, which other workers share; here there is none."""
        return SharedCache()

    def get(self, texts: Sequence[str]) -> list[Vector | None]:
        """The vector of each text, read-only; None where it is not known."""
        keys = [cache_key(self.fingerprint, text) for text in texts]
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            hits = sum(vector is not None for vector in found)
            self._hits += hits
            self._misses += len(found) - hits
        return found

    def put(
        self, texts: Sequence[str], vectors: npt.NDArray[np.float32] | Sequence[Vector]
    ) -> None:
        """Remember the vector of each text.

        Args:
            texts: in the order of the vectors.
            vectors: one a text, shape (texts, dimension); copied.
        """
        keys = [cache_key(self.fingerprint, text) for text in texts]
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                # A copy: a row of the batch would keep the whole batch in memory.
                own = np.array(vector, dtype=np.float32)
                own.flags.writeable = False
                if _size(own) > self._entries.maxsize:
                    continue
                self._added += key not in self._entries
                self._entries[key] = own


def cache_key(fingerprint: str, text: str) -> bytes:
    """16 bytes that stand for a text under an encoder."""
    return blake2b(f"{fingerprint}\0{normalise(text)}".encode(), digest_size=16).digest()


def normalise(text: str) -> str:
    r"""The text with all that the tokenizer does not see taken away, and nothing else.

    White space is one blank, ASCII is lower case. Not more, because exactness goes first: Python
    lowers a final Greek sigma and splits at ``\x1c`` where the tokenizer does not, and to the
    tokenizer a special token is one in capitals alone.

    >>> normalise(" Sort\n a  LIST ")
    'sort a list'
    """
    text = _WHITE.sub(" ", text).strip(" ")
    return text.lower() if text.isascii() and not _SPECIAL.search(text) else text


def _size(vector: Vector) -> int:
    return int(vector.nbytes) + ENTRY_OVERHEAD_BYTES
