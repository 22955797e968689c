"""The broker's jars: fetched one by one from the lock list, checked, kept between runs.

jgo's own resolver fetches them, so neither Maven nor Java is needed. Its dependency resolution
is not used here: it picked a wrong kafka-clients when a logging artefact was resolved in the same
breath, so coordinates and checksums are pinned in a lock list (made by `driftgate.broker.lock`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from driftgate.broker.errors import BrokerFetchError
from driftgate.broker.locking import locked

__all__ = [
    "KAFKA_VERSION",
    "LOCK_PATH",
    "Artefact",
    "Progress",
    "default_cache_dir",
    "fetch_jars",
    "read_lock",
]

KAFKA_VERSION = "4.3.1"
LOCK_PATH = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.lock.json")

# Called with what is done, the whole, and a few words on what goes on. Done and whole have one
# unit within one label's work (bytes for a fetch, steps for a start).
Progress = Callable[[int, int, str], None]

# Connect and read bound of one request, in seconds: with two tries a dead network is given up
# within 20 s; a slow one only has to send something in that time.
_REQUEST_TIMEOUT_S = 8
_TRIES = 2
# Jars fetched at once: most are small, so the time goes into round trips.
_PARALLEL = 4
# Another process that fetches the same 43 MB may be on a slow line.
_OTHER_FETCH_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Artefact:
    """One jar of the lock list.

    Attributes:
        group: Maven group id.
        artifact: Maven artifact id.
        version: an exact version.
        sha256: of the jar's bytes, 64 lower-case hex digits.
        size: of the jar, in bytes.
        classifier: Maven classifier, empty for the main jar.
    """

    group: str
    artifact: str
    version: str
    sha256: str
    size: int
    classifier: str = ""

    @property
    def file_name(self) -> str:
        """The jar's name in the cache."""
        tail = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{tail}.jar"

    @property
    def coordinates(self) -> str:
        """`group:artifact:version[:classifier]`, for people."""
        tail = f":{self.classifier}" if self.classifier else ""
        return f"{self.group}:{self.artifact}:{self.version}{tail}"


def read_lock(path: Path = LOCK_PATH) -> tuple[Artefact, ...]:
    """Reads the lock list.

    Raises:
        BrokerFetchError: the file is missing or not a lock list.
    """
    try:
        return tuple(Artefact(**entry) for entry in json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise BrokerFetchError(
            f"the broker's lock list {path} cannot be read ({error}); install driftgate again"
        ) from error


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """Where jars are kept between runs: `DRIFTGATE_CACHE_DIR`, else the user's cache folder."""
    if own := environ.get("DRIFTGATE_CACHE_DIR"):
        return Path(own)
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "driftgate"


def fetch_jars(
    cache_dir: Path,
    *,
    lock: Sequence[Artefact] | None = None,
    progress: Progress | None = None,
    repositories: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """Makes sure that every jar of the lock list is in the cache, with the right bytes.

    Every jar is hashed at every call (0.06 s for the 45 MB of Kafka), so a damaged cache never
    reaches Java. Safe when several processes call it at once: one fetches, the others wait.

    Args:
        cache_dir: kept between runs; made when missing.
        lock: the jars; default: those of Kafka.
        progress: told the bytes done, the bytes in all, and the jar; only when something has to
            be fetched.
        repositories: name to base URL of Maven repositories; default: jgo's.

    Returns:
        The jars, in the order of the lock list.

    Raises:
        BrokerFetchError: a jar could not be had, or its bytes are not those of the lock list.
    """
    lock = read_lock() if lock is None else lock
    jars = cache_dir / "jars"
    try:
        jars.mkdir(parents=True, exist_ok=True)
        if any(not _is_whole(jars / item.file_name, item) for item in lock):
            _tell(progress, 0, sum(item.size for item in lock), "fetching Apache Kafka")
            with locked(cache_dir / "jars.lock", _OTHER_FETCH_TIMEOUT_S) as had:
                if not had:
                    raise BrokerFetchError(
                        f"another process has been fetching the broker into {cache_dir} for "
                        f"{_OTHER_FETCH_TIMEOUT_S:.0f} s; end it, or name another folder in "
                        "DRIFTGATE_CACHE_DIR"
                    )
                _fetch_missing(jars, lock, progress, repositories)
    except OSError as error:
        raise BrokerFetchError(
            f"the broker's jars cannot be kept in {cache_dir} ({error}); free some room there "
            "or name another folder in DRIFTGATE_CACHE_DIR"
        ) from error
    return tuple(jars / item.file_name for item in lock)


def _tell(progress: Progress | None, done: int, total: int, label: str) -> None:
    if progress is not None:
        progress(done, total, label)


def _is_whole(path: Path, item: Artefact) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return len(data) == item.size and hashlib.sha256(data).hexdigest() == item.sha256


def _fetch_missing(
    jars: Path,
    lock: Sequence[Artefact],
    progress: Progress | None,
    repositories: Mapping[str, str] | None,
) -> None:
    for left_behind in jars.glob(".fetching-*"):  # of a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    total = sum(item.size for item in lock)
    missing = [item for item in lock if not _is_whole(jars / item.file_name, item)]
    done = total - sum(item.size for item in missing)
    pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="broker-fetch")
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=jars) as staging, pool:
        jobs = {
            pool.submit(_fetch, item, jars, Path(staging), repositories): item for item in missing
        }
        try:
            for job in as_completed(jobs):
                job.result()
                done += jobs[job].size
                _tell(progress, done, total, f"fetched {jobs[job].file_name}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(
    item: Artefact, jars: Path, staging: Path, repositories: Mapping[str, str] | None
) -> None:
    """Fetches one jar, tries once more on a failure, and moves it into place in one step."""
    failure: Exception | None = None
    why = ""
    for number in range(_TRIES):
        try:
            path = _resolve(item, staging / str(number), repositories)
        except (OSError, RuntimeError, AssertionError) as error:
            # requests' errors are OSErrors; jgo says "not found" by RuntimeError.
            failure, why = error, str(error)
            continue
        if _is_whole(path, item):
            path.replace(jars / item.file_name)
            return
        failure = None
        why = (
            f"its sha256 is {hashlib.sha256(path.read_bytes()).hexdigest()}, "
            f"the lock list says {item.sha256}"
        )
    cure = (
        "check the network and the proxy settings, then try again"
        if failure is not None
        else "something on the way changes or cuts downloads; use another network"
    )
    raise BrokerFetchError(
        f"{item.coordinates} could not be fetched in {_TRIES} tries: {why}. {cure}; or use a "
        "broker of your own: DRIFTGATE_BOOTSTRAP_SERVERS=host:port"
    ) from failure


def _resolve(item: Artefact, folder: Path, repositories: Mapping[str, str] | None) -> Path:
    try:
        # Here, because it brings requests along (0.2 s), and only a first start needs it.
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError as error:
        raise BrokerFetchError(
            "the embedded broker's jars are fetched by the Python package jgo, which is missing; "
            "install driftgate[embedded], or use a broker of your own: "
            "DRIFTGATE_BOOTSTRAP_SERVERS=host:port"
        ) from error
    # An own repository folder: jgo writes in place, and a kill must not leave half a jar in the
    # user's own Maven repository.
    context = MavenContext(
        repo_cache=folder,
        remote_repos=None if repositories is None else dict(repositories),
        timeout=_REQUEST_TIMEOUT_S,
    )
    component = context.project(item.group, item.artifact).at_version(item.version)
    return component.artifact(classifier=item.classifier).resolve()
