"""Child processes that end with their parent, whatever happens to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Role", "end_with_parent"]

STOP_TIMEOUT_S = 15.0
"""An analyzer finishes its batch and leaves its group within a few seconds."""
_PR_SET_PDEATHSIG = 1
_PARENT_VARIABLE = "_DRIFTGATE_PARENT"
_LAST_LINES = 15


class Role:
    """A `driftgate` command run as a child process. Use it as a context manager.

    Args:
        name: for people.
        arguments: after `driftgate`.
        environ: its whole environment.
        log_path: where its output goes.
        nice: how far it steps back when there is more to do than processors.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        log_path: Path,
        *,
        nice: int = 0,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._arguments = arguments
        self._environ = dict(environ)
        self._nice = nice
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Its process id, while it was started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; its output is appended to the log file."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "driftgate", *self._arguments],
                env={**self._environ, _PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to a whole group: the parent stops children in order.
                start_new_session=True,
            )
        if self._nice:
            # Before it has threads: they take it over.
            os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)

    def ended(self) -> str | None:
        """How it ended, with its last lines, or None while it runs."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        lines = self.log_path.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]
        return f"{self.name} ended with code {code}:\n  " + "\n  ".join(lines)

    def kill(self) -> None:
        """End it without any chance to tidy up, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to stop, and kill it if it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def end_with_parent(environ: Mapping[str, str]) -> None:
    """In a child that a :class:`Role` started: end when the parent is gone, even by kill -9.

    On Linux the kernel sends SIGTERM then; elsewhere a parent that is killed leaves it running.
    """
    parent = environ.get(_PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        # It was gone before we asked.
        sys.exit(1)
