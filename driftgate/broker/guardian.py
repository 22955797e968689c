"""Runs the broker's Java and outlives whoever wanted it just long enough to end it.

A script of the standard library alone, started by its path in an own session, so that it is up in
20 ms and a Ctrl-C in the terminal does not reach Java before its owner stops it in order.

The owner writes one line of JSON to its standard input and then keeps that pipe open: end-of-file
means "stop", whether the owner closed it or was killed. Should the guardian itself be killed, the
kernel kills Java (PR_SET_PDEATHSIG, Linux).

The line: `prepare` (argument lists, run one after the other before), `run` (argument list),
`log` (file for all output), `cwd`, `stop_s` (between SIGTERM and SIGKILL), `remove` (paths removed
at the end), `remove_after_stop` (paths kept when Java failed, or when the owner wrote KEEP_LOG
before it closed the pipe). To standard output goes `pid N` once Java runs. Ends with 0 after a
stop, with FAILED when Java ended unasked.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

__all__ = ["FAILED", "KEEP_LOG", "main"]

# Exit code: Java ended without being asked to.
FAILED = 70
# What an owner writes that stops Java because the start went wrong, and wants to show the log.
KEEP_LOG = b"keep\n"

# How often the parent's existence is looked at, in seconds. It matters only when something that
# was forked from the owner keeps the pipe open; else end-of-file tells at once.
_PARENT_POLL_S = 1.0
_PR_SET_PDEATHSIG = 1


class _Owner:
    """Whoever wanted Java: the parent process, at the other end of standard input."""

    def __init__(self) -> None:
        self._pid = os.getppid()
        self._stop_asked = False
        self._wakeup, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the owner's mask is inherited
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the select below
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def wants_it(self, wait_s: float) -> bool:
        """Whether Java should run; returns at the next event, or after `wait_s` seconds."""
        ready, _, _ = select.select([0, self._wakeup], [], [], wait_s)
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        return not (self._stop_asked or 0 in ready or os.getppid() != self._pid)

    def wants_log(self) -> bool:
        """Whether the owner asked to keep the log; does not wait."""
        return bool(select.select([0], [], [], 0)[0]) and os.read(0, len(KEEP_LOG)) == KEEP_LOG


def main() -> int:
    """Does what the line on standard input says; returns the exit code."""
    owner = _Owner()
    spec = _read_spec()
    if spec is None:
        return 0
    failed = False
    try:
        with Path(spec["log"]).open("ab", buffering=0) as log:
            for argv in spec["prepare"]:
                failed = not _run(argv, spec, log, owner, announce=False)
                if failed or not owner.wants_it(0):
                    break
            else:
                failed = not _run(spec["run"], spec, log, owner, announce=True)
    finally:
        keep_log = failed or owner.wants_log()
        for path in spec["remove"] + ([] if keep_log else spec["remove_after_stop"]):
            _remove(Path(path))
    return FAILED if failed else 0


def _read_spec() -> dict[str, Any] | None:
    """Reads the one line byte by byte, so that end-of-file stays visible to select."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            return None
        line += piece
    spec: dict[str, Any] = json.loads(line)
    return spec


def _run(
    argv: list[str],
    spec: dict[str, Any],
    log: IO[bytes],
    owner: _Owner,
    *,
    announce: bool,
) -> bool:
    """Runs a program until it ends or is no longer wanted; False: it failed by itself."""
    guardian = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_guardian() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:  # it died before the call
                os._exit(1)

    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=spec["cwd"],
            preexec_fn=die_with_guardian,  # noqa: PLW1509 - the guardian has one thread
        )
    except OSError as error:
        log.write(f"cannot run {argv[0]}: {error}\n".encode())
        return False
    if announce:
        _announce(f"pid {process.pid}\n")
    while process.poll() is None:
        if not owner.wants_it(_PARENT_POLL_S):
            _end(process, spec["stop_s"])
            return True
    if process.returncode == 0 and not announce:
        return True
    log.write(f"java ended by itself with {process.returncode}\n".encode())
    return False


def _announce(line: str) -> None:
    # An error: the owner is gone, and the next look at the pipe says so too.
    with contextlib.suppress(OSError):
        os.write(1, line.encode())


def _end(process: subprocess.Popen[bytes], stop_s: float) -> None:
    process.terminate()
    deadline = time.monotonic() + stop_s
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
        process.wait()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
