"""The shared cache on a real socket: workers share vectors, and survive what Redis does.

The server is `redis-server` where that is on the PATH, else the one of the package fakeredis, as a
process of its own too, so that it can be killed and frozen. The tests' ids say which one ran.
"""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from analyzer.cache import cache_key
from analyzer.cache_redis import KEY_PREFIX, SharedEmbeddingCache
from analyzer.cache_redis_url import connect
from analyzer.encoder import Encoder, HashingEncoder, Vectors
from analyzer.faults import FaultFile
from analyzer.features import SemanticFeatures
from analyzer.semantic import Model, SemanticEngine
from driftgate.errors import Exit
from schemas.log import SharedCacheState
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from tests.support.processes import ROOT, SOON_S, Driftgate, environment, eventually

ENCODER = HashingEncoder()
TEXTS = [f"Explain subject number {number}" for number in range(50)]
VECTORS = ENCODER.encode(TEXTS)
PATIENT_S = 20.0
"""For an answer where none is late: the machine may be busy."""
BOUND_S = 10.0
"""Above all that a bounded wait of 0.1 s can take on a busy machine, far below for ever."""
LEASH = ROOT / "tests/support/leash.py"
FAKE = "from fakeredis import TcpFakeServer; TcpFakeServer(('127.0.0.1', {})).serve_forever()"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Redis that can be killed, started again at the same place, and frozen."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._command = [sys.executable, "-c", FAKE.format(self.port)]
        if kind == "redis-server":
            program = shutil.which(kind)
            assert program is not None
            self._command = [program, "--bind", "127.0.0.1", "--port", str(self.port),
                             "--save", "", "--appendonly", "no"]  # fmt: skip
        self.client: Redis = Redis(port=self.port, socket_timeout=SOON_S)
        self.start()

    def start(self) -> None:
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(LEASH), *self._command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually("Redis answers", self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()
        try:
            return bool(self.client.ping())
        except RedisConnectionError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()


@pytest.fixture(params=["redis-server" if shutil.which("redis-server") else "fakeredis"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    started = Server(request.param, tmp_path)
    yield started
    started.close()


def cache_at(url: str, wait_s: float = PATIENT_S, rest_s: float = 0.0) -> SharedEmbeddingCache:
    """The cache of a worker; the shipped waits are for machines that are not also running tests."""
    return SharedEmbeddingCache(
        10**6,
        ENCODER.fingerprint,
        ENCODER.dimension,
        connect(url, socket_seconds=wait_s),
        answer_seconds=wait_s,
        rest_seconds=rest_s,
    )


def found(cache: SharedEmbeddingCache, texts: Sequence[str]) -> int:
    return sum(vector is not None for vector in cache.get(texts))


def redis_key(text: str) -> bytes:
    return KEY_PREFIX + cache_key(ENCODER.fingerprint, text)


def test_what_one_worker_computed_another_finds(server: Server) -> None:
    """Every vector, bit for bit, in the order asked for, with a life in Redis."""
    cache_at(server.url).put(TEXTS, VECTORS)
    other = cache_at(server.url)
    wanted = [TEXTS[3], "unknown", *reversed(TEXTS), TEXTS[3]]
    vectors = other.get(wanted)
    assert vectors.pop(1) is None
    for vector, right in zip(vectors, [VECTORS[3], *VECTORS[::-1], VECTORS[3]], strict=True):
        assert vector is not None
        assert vector.tobytes() == right.tobytes()
    assert (other.shared_hits, other.shared_misses, other.shared_errors) == (50, 1, 0)
    assert all(server.client.ttl(key) > 0 for key in server.client.scan_iter())


async def test_a_second_worker_computes_nothing(server: Server) -> None:
    """Through the engine: the same scores, and its encoder is not asked."""

    class Counting(HashingEncoder):
        texts = 0

        def encode(self, texts: Sequence[str]) -> Vectors:
            self.texts += len(texts)
            return super().encode(texts)

    prompts = [PromptSubmitted(prompt=text) for text in TEXTS]
    scores, computed = [], []
    for _ in range(2):
        encoder = Counting()

        def load(encoder: Encoder = encoder) -> Model:
            # The features have vectors of their own made when they are built.
            return Model(encoder, SemanticFeatures(ENCODER), cache_at(server.url))

        engine = SemanticEngine(load, SOON_S, FaultFile(None))
        await engine.keep_loaded()
        scores.append((await engine.score("semantic", prompts)).scores)
        computed.append(encoder.texts)
    assert computed[0] >= len(TEXTS)
    assert computed[1] == 0
    assert [one.relevance for one in scores[0]] == [one.relevance for one in scores[1]]


def test_corrupted_values_are_ignored(server: Server) -> None:
    """What is no unit vector of this length is as good as nothing, and is replaced."""
    writer = cache_at(server.url)
    writer.put(TEXTS, VECTORS)
    server.client.set(redis_key(TEXTS[0]), b"not a vector")
    server.client.set(redis_key(TEXTS[1]), bytes(ENCODER.dimension * 4))
    server.client.delete(redis_key(TEXTS[2]))
    server.client.lpush(redis_key(TEXTS[2]), b"not even a value")
    reader = cache_at(server.url)
    vectors = reader.get(TEXTS)
    assert [n for n, vector in enumerate(vectors) if vector is None] == [0, 1, 2]
    assert reader.shared_errors == 2
    reader.put(TEXTS[:3], VECTORS[:3])
    assert found(cache_at(server.url), TEXTS) == 50


def test_a_killed_server_is_done_without_until_it_is_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """In mid-use: no error, the local level goes on, and the new one fills again."""
    caplog.set_level(logging.INFO, "driftgate.analyzer")
    cache = cache_at(server.url)
    cache.put(TEXTS[:10], VECTORS[:10])
    assert found(cache_at(server.url), TEXTS) == 10
    server.kill()
    for _ in range(3):
        assert found(cache, TEXTS[:20]) == 10
        cache.put(TEXTS[20:30], VECTORS[20:30])
        assert found(cache, TEXTS[20:30]) == 10
    assert cache.shared_state is SharedCacheState.AWAY
    assert cache.shared_errors >= 3
    server.start()
    cache.put(TEXTS[30:], VECTORS[30:])
    assert cache.shared_state is SharedCacheState.READY
    assert found(cache_at(server.url), TEXTS) == 20, "it began empty, and got what was put since"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_restart_between_two_batches_goes_unseen(server: Server) -> None:
    """A connection that has ended meanwhile is made anew, not taken for an outage."""
    cache = cache_at(server.url)
    cache.put(TEXTS[:1], VECTORS[:1])
    server.kill()
    server.start()
    cache.put(TEXTS[:2], VECTORS[:2])
    assert found(cache_at(server.url), TEXTS[:2]) == 2
    assert cache.shared_errors == 0


def test_a_frozen_server_costs_a_bounded_time(server: Server) -> None:
    """Then it is left alone for the rest; when it goes on, so does sharing."""
    cache_at(server.url).put(TEXTS, VECTORS)
    cache = cache_at(server.url, wait_s=0.1, rest_s=3600.0)
    server.freeze()
    started = time.monotonic()
    for _ in range(100):
        assert found(cache, TEXTS) == 0
    assert time.monotonic() - started < BOUND_S
    assert cache.shared_errors == 1
    server.thaw()
    assert found(cache_at(server.url), TEXTS) == 50
    assert found(cache, TEXTS) == 0, "it is still left alone"


@pytest.mark.parametrize("answer", [b"", b"*", b"-LOADING busy\r\n", b"HTTP/1.1 400\r\n\r\n"])
def test_a_server_that_does_not_answer_as_one(answer: bytes) -> None:
    """Silent, slow without end, loading, or no Redis: a bounded time, and no vectors."""
    stop = threading.Event()

    def serve(listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
            with connection:
                # An answer that begins and does not end keeps each time-out of a socket away.
                connection.sendall(answer)
                while not stop.wait(0.02):
                    if answer:
                        connection.sendall(b"1")
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        cache = cache_at(f"redis://127.0.0.1:{listening.getsockname()[1]}", 0.1, 3600.0)
        started = time.monotonic()
        for _ in range(20):
            assert found(cache, TEXTS[5:]) == 0
            cache.put(TEXTS[:5], VECTORS[:5])
            assert found(cache, TEXTS[:5]) == 5
        assert (cache.shared_errors, cache.shared_state) == (1, SharedCacheState.AWAY)
        assert time.monotonic() - started < BOUND_S
        stop.set()
        listening.close()
        thread.join(SOON_S)


def test_an_unknown_host_costs_a_bounded_time() -> None:
    """Looking its name up has no time-out of its own."""
    cache = cache_at("redis://no-such-host.invalid:6379", 0.1, 3600.0)
    started = time.monotonic()
    for _ in range(20):
        assert found(cache, TEXTS) == 0
    assert time.monotonic() - started < BOUND_S
    assert (cache.shared_errors, cache.shared_state) == (1, SharedCacheState.AWAY)


def test_a_wrong_address_stops_a_worker_at_start(tmp_path: Path) -> None:
    """Before it connects to anything; the cure is said, the password is not."""
    environ = environment(
        KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        tmp_path,
        DRIFTGATE_REDIS_URL="http://worker:hunter2@cache.internal:6379",
    )
    worker = Driftgate(("analyzer",), environ, tmp_path / "analyzer.log")
    try:
        assert worker.wait() == Exit.SETTINGS
    finally:
        worker.end()
    assert "DRIFTGATE_REDIS_URL cannot be used" in worker.log
    assert "redis://[user:password@]host" in " ".join(worker.log.split())
    assert "hunter2" not in worker.log
