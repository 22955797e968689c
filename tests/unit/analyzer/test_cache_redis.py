"""Two levels are one cache; what Redis does wrong costs a bounded wait and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fakeredis import FakeRedis, FakeServer
from redis.exceptions import OutOfMemoryError

from analyzer.cache import EmbeddingCache, cache_key
from analyzer.cache_redis import (
    KEY_PREFIX,
    MOST_TEXTS,
    TTL_SECONDS,
    SharedEmbeddingCache,
)
from analyzer.encoder import HashingEncoder
from analyzer.loading import _cache
from analyzer.settings import AnalyzerSettings
from schemas.log import SharedCacheState
from schemas.settings import KafkaSettings

ENCODER = HashingEncoder()
PATIENT_S = 60.0
"""For an answer where none is late: the machine may be busy."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Client(FakeRedis):
    """In-process, with a count of what is asked for, and places to go wrong in."""

    def __init__(self, **options: Any) -> None:
        super().__init__(protocol=2, **options)
        self.asked: list[int] = []
        self.before: Callable[[], object] = lambda: None
        self.before_writing: Callable[[], object] = lambda: None

    def mget(self, keys: Any, *args: Any) -> Any:
        self.asked.append(len(keys))
        self.before()
        return super().mget(keys, *args)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        self.before_writing()
        return super().pipeline(*args, **options)


def shared(
    client: Client,
    max_bytes: int = 10**6,
    fingerprint: str = ENCODER.fingerprint,
    answer_seconds: float = PATIENT_S,
    clock: Clock | None = None,
) -> SharedEmbeddingCache:
    return SharedEmbeddingCache(
        max_bytes,
        fingerprint,
        ENCODER.dimension,
        client,
        answer_seconds=answer_seconds,
        rest_seconds=5.0,
        clock=clock or Clock(),
    )


def redis_key(text: str) -> bytes:
    return KEY_PREFIX + cache_key(ENCODER.fingerprint, text)


def missing(cache: EmbeddingCache, *texts: str) -> bool:
    """Whether it knows none of them."""
    return all(vector is None for vector in cache.get(texts))


def known(cache: EmbeddingCache, *texts: str) -> bool:
    """Whether it knows each of them."""
    return all(vector is not None for vector in cache.get(texts))


def pair_of(kind: str) -> tuple[EmbeddingCache, EmbeddingCache]:
    """A cache to put into, and one to get from what was put."""
    if kind == "local":
        local = EmbeddingCache(10**6, ENCODER.fingerprint)
        return local, local
    server = FakeServer()
    first = shared(Client(server=server))
    if kind == "same worker":
        return first, first
    return first, shared(Client(server=server), 0 if kind == "no local level" else 10**6)


@pytest.mark.parametrize("kind", ["local", "same worker", "other worker", "no local level"])
def test_what_was_put_is_got(kind: str) -> None:
    """Bit for bit, in the order asked for, each time it is asked for, read-only; else None."""
    writer, reader = pair_of(kind)
    texts = [f"text {number}" for number in range(20)]
    vectors = ENCODER.encode(texts)
    kept = vectors.copy()
    writer.put(texts, vectors)
    vectors[:] = 0
    wanted = ["text 7", "unknown", "text 3", "text 7", "TEXT  3", "text 19"]
    found = reader.get(wanted)
    expected = [kept[7], None, kept[3], kept[7], kept[3], kept[19]]
    for one, right in zip(found, expected, strict=True):
        if right is None:
            assert one is None
            continue
        assert one is not None
        assert one.dtype == np.float32
        assert one.tobytes() == right.tobytes()
        with pytest.raises(ValueError, match="read-only"):
            one[0] = 1.0
    assert (reader.hits, reader.misses) == (5, 1)
    assert reader.get([]) == []
    writer.put([], ENCODER.encode([]))


def test_a_vector_from_redis_is_local_from_then_on() -> None:
    """One call a batch, for each text once, and only for what the local level does not know."""
    server = FakeServer()
    client = Client(server=server)
    texts = ["one", "two", "three"]
    shared(Client(server=server)).put(texts, ENCODER.encode(texts))
    cache = shared(client)
    assert known(cache, "one", "two", "one")
    assert known(cache, "three", "two", "one")
    assert known(cache, *texts)
    assert client.asked == [2, 1]
    assert (cache.hits, cache.misses, len(cache)) == (9, 0, 3)
    assert (cache.shared_hits, cache.shared_misses, cache.shared_errors) == (3, 0, 0)
    assert missing(cache, "four")
    assert (cache.shared_misses, cache.misses) == (1, 1)


def test_values_are_bare_numbers_that_end() -> None:
    """Little-endian float32 under the prefix and the exact key, with a life in seconds."""
    client = Client()
    cache = shared(client)
    vector = ENCODER.encode(["one"])[0]
    cache.put(["one"], [vector])
    assert client.keys() == [redis_key("one")]
    assert client.get(redis_key("one")) == vector.astype("<f4").tobytes()
    assert 0 < client.ttl(redis_key("one")) <= TTL_SECONDS


def test_another_model_finds_nothing() -> None:
    """The fingerprint is part of the key there too."""
    server = FakeServer()
    shared(Client(server=server)).put(["one"], ENCODER.encode(["one"]))
    assert missing(shared(Client(server=server), fingerprint="another"), "one")


GOOD = ENCODER.encode(["one"])[0]


def with_first(value: float) -> bytes:
    vector = GOOD.copy()
    vector[0] = value
    return vector.astype("<f4").tobytes()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        GOOD.tobytes()[:-4],
        GOOD.tobytes() + b"\0\0\0\0",
        GOOD.astype(np.float64).tobytes(),
        np.zeros_like(GOOD).tobytes(),
        (GOOD * np.float32(1.1)).tobytes(),
        GOOD.astype(">f4").tobytes(),
        with_first(float("nan")),
        with_first(float("inf")),
        with_first(3e38),
        # A signalling NaN, which complains when it is converted.
        b"\x01\x00\x80\x7f" + GOOD.tobytes()[4:],
    ],
)  # fmt: skip
def test_a_value_that_is_no_vector_is_ignored_and_replaced(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong length, not finite, not of norm 1: counted, said once, and computed anew."""
    client = Client()
    client.set(redis_key("one"), raw)
    client.set(redis_key("two"), ENCODER.encode(["two"])[0].tobytes())
    cache = shared(client)
    for _ in range(2):
        one, two = cache.get(["one", "two"])
        assert one is None
        assert two is not None
    assert (cache.shared_hits, cache.shared_misses, cache.shared_errors) == (1, 2, 2)
    assert cache.shared_state is SharedCacheState.READY
    assert len(caplog.records) == 1
    cache.put(["one"], [GOOD])
    assert client.get(redis_key("one")) == GOOD.tobytes()


def test_an_absent_redis_is_left_alone_and_found_again(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it goes, one when it is back, one attempt a rest; the local level goes on."""
    caplog.set_level(logging.INFO)
    server, clock = FakeServer(), Clock()
    client = Client(server=server)
    cache = shared(client, clock=clock)
    cache.put(["one"], ENCODER.encode(["one"]))
    server.connected = False
    for _ in range(5):
        assert known(cache, "one")
        assert missing(cache, "two")
        cache.put(["three"], ENCODER.encode(["three"]))
        assert known(cache, "three")
    assert (client.asked, cache.shared_errors) == ([1], 1)
    assert cache.shared_state is SharedCacheState.AWAY
    clock.now_s += 5.0
    cache.get(["five"])
    assert (client.asked, cache.shared_errors) == ([1, 1], 2)
    server.connected = True
    cache.get(["six"])
    assert client.asked == [1, 1], "asked again too early"
    clock.now_s += 5.0
    cache.get(["six"])
    cache.put(["six"], ENCODER.encode(["six"]))
    assert cache.shared_state is SharedCacheState.READY
    assert known(shared(Client(server=server)), "six")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].startswith("the shared cache does not answer")
    assert caplog.messages[1] == "the shared cache is back after 10 s"


def test_a_redis_that_refuses_to_store_is_still_read(caplog: pytest.LogCaptureFixture) -> None:
    """A full one: what it has is used, and storing is tried once a rest."""
    caplog.set_level(logging.INFO)
    server, clock = FakeServer(), Clock()
    attempts: list[int] = []
    shared(Client(server=server)).put(["known"], ENCODER.encode(["known"]))
    client = Client(server=server)

    def full() -> None:
        attempts.append(1)
        raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    client.before_writing = full
    cache = shared(client, clock=clock)
    for _ in range(3):
        cache.put(["new"], ENCODER.encode(["new"]))
    assert cache.shared_state is SharedCacheState.READ_ONLY
    assert known(cache, "known")
    clock.now_s += 5.0
    cache.put(["new"], ENCODER.encode(["new"]))
    assert len(attempts) == cache.shared_errors == 2
    client.before_writing = lambda: None
    clock.now_s += 5.0
    cache.put(["new"], ENCODER.encode(["new"]))
    assert cache.shared_state is SharedCacheState.READY
    assert len(caplog.records) == 2
    assert "refuses to store" in caplog.messages[0]


def test_a_refusal_is_said_without_the_value(caplog: pytest.LogCaptureFixture) -> None:
    """The server's words alone: a vector in the log would be no text, and thousands of bytes."""
    cache = SharedEmbeddingCache(
        0, "f", ENCODER.dimension, Client(), ttl_seconds=0, answer_seconds=PATIENT_S
    )
    cache.put(["one", "two"], ENCODER.encode(["one", "two"]))
    assert cache.shared_state is SharedCacheState.READ_ONLY
    assert "ResponseError: invalid expire time" in caplog.messages[0]
    assert KEY_PREFIX.decode() not in caplog.messages[0]


def test_a_call_that_hangs_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """The caller goes on, also while the call is still out; when it comes back, all is well."""
    caplog.set_level(logging.INFO)
    let_go, clock = threading.Event(), Clock()
    client = Client()
    client.before = let_go.wait
    cache = shared(client, answer_seconds=0.01, clock=clock)
    for attempt in (1, 2, 3):
        # Without the bound this would never return.
        assert missing(cache, "one")
        assert (cache.shared_errors, client.asked) == (attempt, [1])
        clock.now_s += 5.0
    assert cache.shared_state is SharedCacheState.AWAY
    let_go.set()
    # The lane makes one call at a time, so this one comes after the one that hung.
    cache._lane.call(lambda: None, PATIENT_S)
    cache._answer_s = PATIENT_S
    cache.put(["one"], [GOOD])
    assert cache.shared_state is SharedCacheState.READY
    assert client.get(redis_key("one")) == GOOD.tobytes()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "TimeoutError: no answer within 10 ms" in caplog.messages[0]


def test_what_is_stored_late_is_what_was_put() -> None:
    """A call that was given up stores the vectors as they were, whatever became of them since."""
    let_go = threading.Event()
    client = Client()
    client.before_writing = let_go.wait
    cache = shared(client, answer_seconds=0.01)
    vectors = ENCODER.encode(["one"])
    cache.put(["one"], vectors)
    assert cache.shared_state is SharedCacheState.AWAY
    vectors[:] = 0
    let_go.set()
    # The lane makes one call at a time, so this one comes after it.
    cache._lane.call(lambda: None, PATIENT_S)
    assert client.get(redis_key("one")) == GOOD.tobytes()


def test_a_huge_batch_is_asked_for_in_part() -> None:
    """A call has a largest size; the rest is computed."""
    server = FakeServer()
    texts = [f"text {number}" for number in range(MOST_TEXTS + 10)]
    client = Client(server=server)
    cache = shared(client, max_bytes=0)
    cache.put(texts, ENCODER.encode(texts))
    assert sum(one is not None for one in cache.get(texts)) == MOST_TEXTS
    assert client.asked == [MOST_TEXTS]


def test_threads_may_share_it() -> None:
    """Under four threads no call is lost, nothing fails and the counters add up."""
    cache = shared(Client(), max_bytes=20 * 2000)

    def work(seed: int) -> None:
        texts = [f"text {(seed * 7 + number) % 40}" for number in range(10)]
        for _ in range(10):
            found = cache.get(texts)
            for one, right in zip(found, ENCODER.encode(texts), strict=True):
                assert one is None or (one == right).all()
            cache.put(texts, ENCODER.encode(texts))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert cache.hits + cache.misses == 8 * 10 * 10
    assert cache.shared_hits > 0
    assert cache.shared_errors == 0


def test_the_model_gets_the_level_that_is_configured() -> None:
    """Without an address there is the local level alone; with one, both, and no connection yet."""
    plain = AnalyzerSettings(kafka=KafkaSettings(), worker_id="w")
    assert type(_cache(plain, ENCODER)) is EmbeddingCache
    both = AnalyzerSettings(
        kafka=KafkaSettings(), worker_id="w", redis_url="redis://127.0.0.1:1/3", cache_bytes=5000
    )
    cache = _cache(both, ENCODER)
    assert isinstance(cache, SharedEmbeddingCache)
    assert cache.max_bytes == 5000
    assert cache.fingerprint == ENCODER.fingerprint
