"""The owner's side of the guardian: starts it, and ends Java through it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from driftgate.broker import guardian
from driftgate.broker.layout import Layout

__all__ = ["STOP_TIMEOUT_S", "GuardedJava"]

# An orderly stop takes 0.4 s; past this bound Java is killed. Higher delays every stop of a stuck
# broker; lower risks a recovery at the next start on the same folder.
STOP_TIMEOUT_S = 10.0
# The guardian needs a moment after Java's end; past it the guardian is killed, and Java with it.
_GUARDIAN_GRACE_S = 5.0


class GuardedJava:
    """A Java program under a guardian; it ends at the latest when this process does.

    Args:
        prepare: argument lists of programs to run before, one after the other.
        run: argument list of the program.
        layout: where its log and working folder are, and what is removed at the end.
        lock: descriptor of the folder's lock; held until Java has ended.

    Raises:
        OSError: the guardian cannot be started.
    """

    def __init__(
        self, prepare: Sequence[Sequence[str]], run: Sequence[str], layout: Layout, lock: int
    ) -> None:
        spec = {
            "prepare": prepare,
            "run": run,
            "log": str(layout.log),
            "cwd": str(layout.folder),
            "stop_s": STOP_TIMEOUT_S,
            "remove": [str(layout.folder)] if layout.temporary else [],
            "remove_after_stop": [str(layout.log)] if layout.temporary else [],
        }
        self._pid: int | None = None
        stdin, lifeline = os.pipe()
        reports, stdout = os.pipe()
        self._lifeline = os.fdopen(lifeline, "wb", buffering=0)
        self._reports = os.fdopen(reports, "rb", buffering=0)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian.__file__))],
            stdin=stdin,
            stdout=stdout,
            start_new_session=True,
            pass_fds=[lock],
        )
        os.close(stdin)
        os.close(stdout)
        self._write(json.dumps(spec).encode() + b"\n")

    @property
    def is_running(self) -> bool:
        """Whether Java (or a preparation) runs, as far as its guardian knows."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Java's process id; blocks until Java has been started."""
        if self._pid is None:
            self._pid = int(self._reports.readline().removeprefix(b"pid "))
        return self._pid

    def end(self, *, keep_log: bool) -> None:
        """Stops Java in order, or kills it after STOP_TIMEOUT_S; safe to call again."""
        if keep_log and not self._lifeline.closed:
            self._write(guardian.KEEP_LOG)
        self._lifeline.close()
        try:
            self._process.wait(STOP_TIMEOUT_S + _GUARDIAN_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reports.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        # A broken pipe: it has ended, as is_running tells.
        with contextlib.suppress(BrokenPipeError):
            while view:  # an unbuffered write may be partial
                view = view[self._lifeline.write(view) :]
