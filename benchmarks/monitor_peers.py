"""The peers of `benchmarks.monitor`: how each is installed and started.

Faust is in this environment. Quix Streams and Bytewax get one of their own, Kafka Streams is built
with Maven; both are kept in driftgate's cache folder, by what they are made of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from driftgate.broker.artefacts import default_cache_dir

__all__ = ["HISTOGRAM_ERROR", "PEERS", "NotHereError", "Peer"]

_FOLDER = Path(__file__).parent / "peers"
_REQUIREMENTS = _FOLDER / "requirements.txt"
_KAFKA_STREAMS = _FOLDER / "kafka-streams"
HISTOGRAM_ERROR = 0.0897
"""Of 64 buckets from 1 ms to 60 s: half a bucket, 60000 ** (1 / 128) - 1."""
_LAST_CHARS = 400


class NotHereError(Exception):
    """A peer cannot be run on this machine; says what is missing, and the cure."""


class Peer(NamedTuple):
    """A system that computes the same windows."""

    name: str
    share: float
    """Rows of a measurement, as a share of those of our own monitor: about 10 s of work."""
    batch: int
    """Rows a record of what it reads; 1 is JSON."""
    p95_error: float
    command: Callable[[], list[str]]
    """Without its last arguments: servers, input, output, group and rows. Raises NotHereError."""


def _faust() -> list[str]:
    return [sys.executable, str(_FOLDER / "faust_windows.py")]


def _quix() -> list[str]:
    return [str(_python()), str(_FOLDER / "quix_windows.py")]


def _bytewax() -> list[str]:
    return [str(_python()), str(_FOLDER / "bytewax_windows.py")]


def _kafka_streams(mode: str) -> list[str]:
    target = _built()
    classpath = os.pathsep.join([str(target / "windowed-metrics.jar"), f"{target}/dependency/*"])
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return ["java", "-Xmx1g", quiet, "-cp", classpath, "WindowedMetrics", mode]


def _python() -> Path:
    """The Python that has the peers' packages; installed when it is first asked for."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = _made(f"python{version}", [_REQUIREMENTS], _install)
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    python = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        _run([uv, "venv", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "--python", python, "-r", str(_REQUIREMENTS)])
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([python, "-m", "pip", "install", "-r", str(_REQUIREMENTS)])


def _built() -> Path:
    """The folder of the Kafka Streams program and its jars; built when it is first asked for."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise NotHereError(f"{tool} is not on the PATH: install Maven and Java 17 or newer")
    sources = [_KAFKA_STREAMS / "pom.xml", *sorted(_KAFKA_STREAMS.rglob("*.java"))]
    return _made("kafka-streams", sources, _build)


def _build(folder: Path) -> None:
    pom = str(_KAFKA_STREAMS / "pom.xml")
    _run(["mvn", "--batch-mode", "--quiet", "--file", pom, f"-Doutput={folder}", "package"])


def _made(name: str, sources: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """A folder of the cache that is made once for each content of its sources."""
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = default_cache_dir(os.environ) / "benchmark-peers" / f"{name}-{content[:12]}"
    complete = folder / ".complete"
    if not complete.exists():
        print(f"installing {name} into {folder}", file=sys.stderr)
        # What was interrupted is no start.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        complete.touch()
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()[-_LAST_CHARS:]
        raise NotHereError(
            f"`{' '.join(command[:3])} …` failed with code {done.returncode} (does a package index "
            f"answer?): {said}"
        )


PEERS = (
    Peer("faust", 1 / 4500, 1, HISTOGRAM_ERROR, _faust),
    Peer("quix_streams", 1 / 450, 1, HISTOGRAM_ERROR, _quix),
    Peer("bytewax", 1 / 45, 1, HISTOGRAM_ERROR, _bytewax),
    Peer("kafka_streams", 1 / 9, 1, HISTOGRAM_ERROR, lambda: _kafka_streams("hopping")),
    Peer("kafka_streams_panes", 1 / 3, 1, HISTOGRAM_ERROR, lambda: _kafka_streams("panes")),
    Peer("kafka_streams_batched", 1, 100, HISTOGRAM_ERROR, lambda: _kafka_streams("batched")),
    Peer("kafka_streams_batched_300", 1, 300, HISTOGRAM_ERROR, lambda: _kafka_streams("batched")),
)
