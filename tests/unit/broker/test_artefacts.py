from __future__ import annotations

import gc
import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from driftgate.broker.artefacts import (
    KAFKA_VERSION,
    Artefact,
    default_cache_dir,
    fetch_jars,
    read_lock,
)
from driftgate.broker.errors import BrokerFetchError

JAR = b"the bytes of a jar" * 100


def artefact(name: str, data: bytes = JAR) -> Artefact:
    return Artefact(
        group="org.example",
        artifact=name,
        version="1.2.3",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


@dataclass
class Repository:
    """A Maven repository on 127.0.0.1, which counts what it is asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def put(self, item: Artefact, data: bytes) -> None:
        folder = f"/{item.group.replace('.', '/')}/{item.artifact}/{item.version}"
        self.files[f"{folder}/{item.file_name}"] = data

    def asked_for(self, item: Artefact) -> int:
        return sum(n for path, n in self.asked.items() if path.endswith(f"/{item.file_name}"))

    @property
    def named(self) -> dict[str, str]:
        return {"local": self.url}


@pytest.fixture
def repository() -> Iterator[Repository]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked[self.path] += 1
            data = found.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Repository(url=f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_lock_list_is_well_formed() -> None:
    """It pins Kafka itself at the version, once each, with whole checksums and sizes."""
    lock = read_lock()
    assert [item.version for item in lock if item.artifact == "kafka_2.13"] == [KAFKA_VERSION]
    assert [item.version for item in lock if item.artifact == "kafka-clients"] == [KAFKA_VERSION]
    assert len({item.file_name for item in lock}) == len(lock)
    assert all(re.fullmatch(r"[0-9a-f]{64}", item.sha256) for item in lock)
    assert all(item.size > 1000 for item in lock)
    # A log binding of another generation than the API is silently ignored.
    slf4j = {item.version for item in lock if item.group == "org.slf4j"}
    assert len(slf4j) == 1


def test_missing_jars_are_fetched_with_progress_and_then_kept(
    repository: Repository, tmp_path: Path
) -> None:
    """The first call fetches each jar once; the second asks the network for nothing."""
    lock = [artefact("one"), replace(artefact("two"), classifier="linux")]
    for item in lock:
        repository.put(item, JAR)
    seen: list[tuple[int, int, str]] = []
    paths = fetch_jars(
        tmp_path,
        lock=lock,
        repositories=repository.named,
        progress=lambda *step: seen.append(step),
    )
    assert [path.name for path in paths] == ["one-1.2.3.jar", "two-1.2.3-linux.jar"]
    assert all(path.read_bytes() == JAR for path in paths)
    assert seen[0][:2] == (0, 2 * len(JAR))
    assert seen[-1][:2] == (2 * len(JAR), 2 * len(JAR))
    before = repository.asked.total()
    seen.clear()
    again = fetch_jars(
        tmp_path,
        lock=lock,
        repositories=repository.named,
        progress=lambda *step: seen.append(step),
    )
    assert again == paths
    assert seen == []
    assert repository.asked.total() == before
    assert not list(tmp_path.rglob(".fetching-*"))


@pytest.mark.parametrize(
    "damage", [b"", JAR[:-1], b"X" + JAR[1:]], ids=["emptied", "cut", "one byte changed"]
)
def test_damaged_jar_in_the_cache_is_fetched_again_once(
    repository: Repository, tmp_path: Path, damage: bytes
) -> None:
    """Whatever the damage, the next start has the right bytes again."""
    item = artefact("one")
    repository.put(item, JAR)
    [path] = fetch_jars(tmp_path, lock=[item], repositories=repository.named)
    path.write_bytes(damage)
    fetch_jars(tmp_path, lock=[item], repositories=repository.named)
    assert path.read_bytes() == JAR
    assert repository.asked_for(item) == 2


def test_wrong_bytes_from_the_network_are_an_error_after_two_tries(
    repository: Repository, tmp_path: Path
) -> None:
    """The error names the jar and both checksums, and the bytes never reach the cache."""
    item = artefact("one")
    repository.put(item, b"something else")
    with pytest.raises(BrokerFetchError) as caught:
        fetch_jars(tmp_path, lock=[item], repositories=repository.named)
    message = str(caught.value)
    assert "org.example:one:1.2.3" in message
    assert item.sha256 in message
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert repository.asked_for(item) == 2
    assert not list(tmp_path.rglob("*.jar"))


def test_repository_that_is_away_is_an_error_with_the_cure(tmp_path: Path) -> None:
    """A refused connection names the jar, the network, and the way round."""
    with pytest.raises(BrokerFetchError, match="check the network") as caught:
        fetch_jars(tmp_path, lock=[artefact("one")], repositories={"local": "http://127.0.0.1:1"})
    assert "org.example:one:1.2.3" in str(caught.value)
    assert "DRIFTGATE_BOOTSTRAP_SERVERS" in str(caught.value)


# jgo leaves the response of a refused download to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
def test_jar_that_the_repository_lacks_is_an_error(repository: Repository, tmp_path: Path) -> None:
    """A 404 is told like any other failed fetch."""
    with pytest.raises(BrokerFetchError, match=r"org\.example:one:1\.2\.3 could not be fetched"):
        fetch_jars(tmp_path, lock=[artefact("one")], repositories=repository.named)
    gc.collect()  # here, and not in another test


def test_two_processes_at_once_fetch_each_jar_once(repository: Repository, tmp_path: Path) -> None:
    """The second waits for the first, and both end with whole jars."""
    lock = [artefact(f"jar{number}", JAR + bytes([number])) for number in range(8)]
    for number, item in enumerate(lock):
        repository.put(item, JAR + bytes([number]))
    script = (
        "import sys; from pathlib import Path\n"
        "from driftgate.broker.artefacts import Artefact, fetch_jars\n"
        f"lock = {lock!r}\n"
        f"fetch_jars(Path({str(tmp_path)!r}), lock=lock, repositories={repository.named!r})\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert [repository.asked_for(item) for item in lock] == [1] * 8
    assert len(fetch_jars(tmp_path, lock=lock, repositories={})) == 8


def test_what_a_killed_fetch_left_behind_is_removed(repository: Repository, tmp_path: Path) -> None:
    """Half a jar of an earlier process neither stays nor is used."""
    item = artefact("one")
    repository.put(item, JAR)
    left = tmp_path / "jars" / ".fetching-abc"
    left.mkdir(parents=True)
    (left / "one-1.2.3.jar").write_bytes(JAR[:10])
    fetch_jars(tmp_path, lock=[item], repositories=repository.named)
    assert not left.exists()


def test_cache_that_cannot_be_written_is_an_error_with_the_cure(tmp_path: Path) -> None:
    """A file where the folder should be names the folder and the variable."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerFetchError, match="DRIFTGATE_CACHE_DIR"):
        fetch_jars(tmp_path / "file", lock=[artefact("one")])


def test_unreadable_lock_list_is_an_error(tmp_path: Path) -> None:
    """A broken installation is named as such."""
    (tmp_path / "lock.json").write_text('[{"group": "a"}]')
    with pytest.raises(BrokerFetchError, match="install driftgate again"):
        read_lock(tmp_path / "lock.json")


def test_cache_folder_comes_from_the_environment() -> None:
    """DRIFTGATE_CACHE_DIR goes before XDG_CACHE_HOME, and that before the home folder."""
    both = {"DRIFTGATE_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}
    assert default_cache_dir(both) == Path("/a")
    assert default_cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/driftgate")
    assert default_cache_dir({}) == Path.home() / ".cache" / "driftgate"
