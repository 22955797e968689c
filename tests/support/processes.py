"""Real `driftgate` processes, and bounded waiting for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from schemas.settings import KafkaSettings

__all__ = ["ROOT", "SOON_S", "Driftgate", "Launch", "environment", "eventually"]

ROOT = Path(__file__).parents[2]
SOON_S = 60.0
"""Bound of everything that must happen soon: long, because the machine may be busy."""
_KEPT = ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR", "VIRTUAL_ENV", "DRIFTGATE_CACHE_DIR")
_LEASH = Path(__file__).parent / "leash.py"
T = TypeVar("T")


def eventually(what: str, found: Callable[[], T], within_s: float = SOON_S) -> T:
    """The first true value of a function, which is asked again and again; fails after a time."""
    deadline = time.monotonic() + within_s
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; last: {value!r}"
        time.sleep(0.05)


def environment(kafka: KafkaSettings, home: Path, **variables: str) -> dict[str, str]:
    """The environment of a process: of the test run only what finding programs needs.

    Args:
        kafka: becomes the variables that say so.
        home: where MLflow and the like may write.
        variables: more, over these.
    """
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        # Tests look for whole lines.
        "COLUMNS": "200",
        "HF_HUB_OFFLINE": "1",
        "XDG_STATE_HOME": str(home),
        "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
        "DRIFTGATE_PROMPT_PARTITIONS": str(kafka.prompt_partitions),
        "DRIFTGATE_SERVICE_PARTITIONS": str(kafka.service_partitions),
        **variables,
    }


class Driftgate:
    """A running `driftgate` command.

    Args:
        arguments: of the command line.
        environ: its whole environment.
        log: gets stdout and stderr.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._arguments = list(arguments)
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(_LEASH), sys.executable, "-m", "driftgate", *arguments],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
            )

    def __str__(self) -> str:
        return f"driftgate {' '.join(self._arguments)} (pid {self.pid}, code {self.code})"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """All that it said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 80) -> str:
        """The last lines that it said."""
        return "\n".join(self.log.splitlines()[-lines:])

    def wait_for_log(self, text: str, times: int = 1, within_s: float = SOON_S) -> None:
        """Wait until it has said something so often; fails when it ends before."""

        def said() -> bool:
            if self.log.count(text) >= times:
                return True
            assert self.code is None, f"{self} ended before it said {text!r}"
            return False

        eventually(f"{self} says {text!r}", said, within_s)

    def wait(self, within_s: float = SOON_S) -> int:
        """Its exit code, once it ends by itself."""
        return self._process.wait(within_s)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def stop(self, within_s: float = SOON_S) -> int:
        """SIGTERM, and its exit code."""
        self.terminate()
        return self.wait(within_s)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """SIGSTOP: frozen, as by a long pause of its machine."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Make sure that it is gone, whatever state it is in."""
        if self.code is None:
            self.kill()


class Launch(Protocol):
    """Starts `driftgate` processes."""

    def __call__(self, *arguments: str, kafka: KafkaSettings, **variables: str) -> Driftgate:
        """Start `driftgate ARGUMENTS` with these variables beside those of the broker."""
