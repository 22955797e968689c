"""Vectors that another worker has computed: a level of the cache in a Redis that workers share.

Optional, and never more than a help: whatever Redis does, a batch waits for it for a bounded time
and is then computed as if there were none. Values are the bare numbers (little-endian float32),
so that nothing in Redis is ever executed; one that is no vector of this model is ignored.

Give that Redis a `maxmemory` and `maxmemory-policy allkeys-lru`. A Redis Cluster does not answer
for keys of several nodes at once, and so is of no use here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt

from analyzer.cache import EmbeddingCache, cache_key
from schemas.log import SharedCache, SharedCacheState

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "ANSWER_SECONDS",
    "KEY_PREFIX",
    "MOST_TEXTS",
    "REST_SECONDS",
    "TTL_SECONDS",
    "SharedEmbeddingCache",
]

log = logging.getLogger("driftgate.analyzer")
T = TypeVar("T")
Vector = npt.NDArray[np.float32]

KEY_PREFIX = b"driftgate:vector:1:"
"""Before the key of :func:`analyzer.cache.cache_key`; the number is that of the value's form."""
ANSWER_SECONDS = 0.1
"""A batch waits so long for an answer, whatever takes the time: name servers and answers that
trickle know no socket's time-out. About the time that computing the batch takes."""
REST_SECONDS = 5.0
"""Redis is left alone for so long after a failure: one that is away costs 2 % of the time."""
TTL_SECONDS = 7 * 86_400
"""A value's life: longer than most rollouts; the vectors of a former model are gone after it."""
MOST_TEXTS = 512
"""Texts a call: 0.8 MB of vectors, moved in 20 to 40 ms on a busy core. Twice as many come near the
time above, and a large poll would look like an outage."""

_UNIT_TOLERANCE = 1e-2
"""Of a squared norm, the same as for what an encoder returns."""


class SharedEmbeddingCache(EmbeddingCache):
    """A local cache, and behind it one in Redis. Never raises for what Redis does.

    `hits` and `misses` count both levels as one; `shared_hits` are those of them that came from
    Redis.

    Args:
        max_bytes: of the local level, see :class:`analyzer.cache.EmbeddingCache`.
        fingerprint: of the encoder.
        dimension: numbers a vector.
        client: of :func:`analyzer.cache_redis_url.connect`.
        ttl_seconds: the life of a value in Redis; at least 1.
        answer_seconds: the longest that a `get` or a `put` waits for Redis.
        rest_seconds: that Redis is left alone after a failure.
        clock: seconds, for the rest.
    """

    def __init__(
        self,
        max_bytes: int,
        fingerprint: str,
        dimension: int,
        client: Redis,
        *,
        ttl_seconds: int = TTL_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        rest_seconds: float = REST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(max_bytes, fingerprint)
        self._dimension = dimension
        self._client = client
        self._ttl_s = ttl_seconds
        self._answer_s = answer_seconds
        self._lane = _Lane()
        self._away = _Outage(
            "the shared cache does not answer, going on without it",
            "the shared cache is back",
            rest_seconds,
            clock,
        )
        self._refusing = _Outage(
            "the shared cache refuses to store, only reading from it",
            "the shared cache stores again",
            rest_seconds,
            clock,
        )
        self._found_bad = False
        self.shared_hits = 0
        """Texts found in Redis so far."""
        self.shared_misses = 0
        """Texts that Redis was asked for and did not have, or not as a vector."""
        self.shared_errors = 0
        """Calls that failed, and values that were no vector of this model."""

    @property
    def shared_state(self) -> SharedCacheState:
        """What was last seen of Redis; at first, the best is assumed."""
        if self._away.is_on:
            return SharedCacheState.AWAY
        return SharedCacheState.READ_ONLY if self._refusing.is_on else SharedCacheState.READY

    @property
    def shared(self) -> SharedCache:
        """What a heartbeat says of Redis."""
        return SharedCache(
            state=self.shared_state,
            hits=self.shared_hits,
            misses=self.shared_misses,
            errors=self.shared_errors,
        )

    def get(self, texts: Sequence[str]) -> list[Vector | None]:
        """The vector of each text, read-only; None where it is in neither level."""
        found = super().get(texts)
        pairs = zip(texts, found, strict=True)
        missing = list(dict.fromkeys(text for text, vector in pairs if vector is None))
        fetched = self._fetch(missing[:MOST_TEXTS]) if missing else {}
        if not fetched:
            return found
        super().put(list(fetched), list(fetched.values()))
        both = [
            fetched.get(text) if vector is None else vector
            for text, vector in zip(texts, found, strict=True)
        ]
        late = sum(one is None for one in found) - sum(one is None for one in both)
        with self._lock:
            self._hits += late
            self._misses -= late
        return both

    def put(
        self, texts: Sequence[str], vectors: npt.NDArray[np.float32] | Sequence[Vector]
    ) -> None:
        """Remember the vector of each text, in both levels.

        Args:
            texts: in the order of the vectors.
            vectors: one a text, shape (texts, dimension); copied.
        """
        super().put(texts, vectors)
        if not len(texts) or self._away.rests() or self._refusing.rests():
            return
        # Bytes, here and now: a call that was given up may run when the caller has gone on.
        entries = [
            (self._key(text), np.asarray(vector, dtype="<f4").tobytes())
            for text, vector in zip(texts[:MOST_TEXTS], vectors, strict=False)
        ]
        try:
            self._lane.call(lambda: self._store(entries), self._answer_s)
        except Exception as error:  # noqa: BLE001 - what a prompt costs is not Redis's to say
            # An answer that says no is about this call; reading may go on.
            (self._refusing if _is_refusal(error) else self._away).begin(error)
            self._count(errors=1)
        else:
            self._refusing.end()
            self._away.end()

    def _fetch(self, texts: Sequence[str]) -> dict[str, Vector]:
        if self._away.rests():
            return {}
        keys = [self._key(text) for text in texts]
        try:
            values = self._lane.call(
                lambda: cast("list[bytes | None]", self._client.mget(keys)), self._answer_s
            )
            pairs = list(zip(texts, values, strict=True))
        except Exception as error:  # noqa: BLE001 - see above
            self._away.begin(error)
            self._count(errors=1)
            return {}
        self._away.end()
        given = {text: raw for text, raw in pairs if raw is not None}
        vectors = {text: self._vector(raw) for text, raw in given.items()}
        fetched = {text: vector for text, vector in vectors.items() if vector is not None}
        bad = len(given) - len(fetched)
        self._count(len(fetched), len(texts) - len(fetched), bad)
        if bad and not self._found_bad:
            self._found_bad = True
            log.warning(
                "the shared cache holds values that are no vectors of this model; they are "
                "computed anew and replaced (said once). Does something else write %s... there?",
                KEY_PREFIX.decode(),
            )
        return fetched

    def _store(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for key, value in entries:
                pipeline.set(key, value, ex=self._ttl_s)
            # The errors that it would raise by itself quote the value, which is no text.
            answers = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    def _vector(self, raw: bytes) -> Vector | None:
        if len(raw) != 4 * self._dimension:
            return None
        vector = np.frombuffer(raw, dtype="<f4").astype(np.float32)
        with np.errstate(all="ignore"):
            wide = vector.astype(np.float64)
            # A comparison with NaN is false, so this also finds what is not finite.
            if not abs(float(wide @ wide) - 1.0) <= _UNIT_TOLERANCE:
                return None
        vector.flags.writeable = False
        return vector

    def _key(self, text: str) -> bytes:
        return KEY_PREFIX + cache_key(self.fingerprint, text)

    def _count(self, hits: int = 0, misses: int = 0, errors: int = 0) -> None:
        with self._lock:
            self.shared_hits += hits
            self.shared_misses += misses
            self.shared_errors += errors


class _Lane:
    """A daemon thread that makes one call at a time, and is not waited for longer than agreed.

    Time-outs of sockets do not bound a call: they hold for each part of an answer, and looking up
    a host's name has none at all.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._free = threading.Lock()
        threading.Thread(target=self._run, name="shared-cache", daemon=True).start()

    def call(self, function: Callable[[], T], within_s: float) -> T:
        """What a function returns or raises.

        Raises:
            TimeoutError: it did not come back in time, or the one before it has not yet.
        """
        deadline = time.monotonic() + within_s
        late = f"no answer within {within_s * 1000:.0f} ms"
        if not self._free.acquire(timeout=within_s):
            raise TimeoutError(f"{late}, nor to the call before")
        answer: Future[T] = Future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                self._free.release()
                answer.set_exception(error)
            else:
                self._free.release()
                answer.set_result(result)

        self._calls.put(run)
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise TimeoutError(str(error) or late) from error

    def _run(self) -> None:
        while True:
            self._calls.get()()


class _Outage:
    """A time in which something is not to be had: begins and ends with one line in the log each.

    Args:
        gone: what is said when it begins.
        back: what is said when it ends.
        rest_s: between two attempts.
        clock: seconds.
    """

    def __init__(self, gone: str, back: str, rest_s: float, clock: Callable[[], float]) -> None:
        self._gone = gone
        self._back = back
        self._rest_s = rest_s
        self._clock = clock
        self._since_s: float | None = None
        self._again_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it has begun and not ended."""
        return self._since_s is not None

    def rests(self) -> bool:
        """Whether it is too early to try again."""
        return self.is_on and self._clock() < self._again_s

    def begin(self, error: Exception) -> None:
        """It failed, for the first time or again."""
        now_s = self._clock()
        self._again_s = now_s + self._rest_s
        if self._since_s is None:
            self._since_s = now_s
            log.warning(
                "%s; trying again every %g s: %s: %s",
                self._gone,
                self._rest_s,
                type(error).__name__,
                error,
            )

    def end(self) -> None:
        """It works."""
        if self._since_s is not None:
            log.info("%s after %.0f s", self._back, self._clock() - self._since_s)
            self._since_s = None


def _is_refusal(error: Exception) -> bool:
    from redis.exceptions import ResponseError  # noqa: PLC0415 - it is an optional dependency

    return isinstance(error, ResponseError)
