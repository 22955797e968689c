"""The processes of `benchmarks.monitor`: each on one core, with its memory and CPU time."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

from benchmarks.monitor_results import Mark

__all__ = ["BROKER", "CORES", "PeerProcess", "Process", "Usage", "on_core", "running"]

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
BROKER, _SYSTEM = 0, 1
"""Places in `CORES`: the broker and the benchmark on one, what is measured on another."""
_STOP_TIMEOUT_S = 10.0
_LAST_CHARS = 2000


@contextmanager
def on_core(place: int) -> Iterator[None]:
    """What is started within stays on one core; nothing is pinned where there is only one."""
    if len(CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[place]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process(Protocol):
    """Something that runs."""

    @property
    def pid(self) -> int | None:
        """Its process id, while it was started."""

    def start(self) -> None:
        """Start it."""

    def ended(self) -> str | None:
        """How it ended, with its last words, or None while it runs."""

    def stop(self) -> None:
        """End it."""


@contextmanager
def running(process: Process) -> Iterator[Usage]:
    """A process, on a core of its own, and what it uses."""
    with on_core(_SYSTEM):
        process.start()
    try:
        yield Usage(process.pid)
    finally:
        process.stop()


class PeerProcess:
    """A peer.

    Args:
        command: with all of its arguments.
        folder: where it runs and may keep its state.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it says goes to files of its folder."""
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def stop(self) -> None:
        """Ask it to stop, and kill it if it does not."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int | None:
        """Its process id, while it was started."""
        return self._process.pid if self._process else None

    def ended(self) -> str | None:
        """How it ended, with its last words, or None while it runs."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        said = (self._folder / "err").read_text("utf-8", "replace")[-_LAST_CHARS:]
        return f"{self._command[0]} ended with code {code}:\n{said}"

    def marks(self) -> list[Mark]:
        """How many rows it had taken when, as it says."""
        lines = (self._folder / "out").read_text("utf-8", "replace").splitlines()
        return [Mark(**json.loads(line)) for line in lines if line.startswith('{"rows"')]


class Usage:
    """CPU time and memory of a process, sampled."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid)
        self._samples: list[tuple[float, float]] = []
        self.peak_rss_mb = 0.0

    def sample(self) -> None:
        """Look once; a process that has ended is left alone."""
        try:
            with self._process.oneshot():
                times = self._process.cpu_times()
                rss = self._process.memory_info().rss
        except psutil.NoSuchProcess:
            return
        self._samples.append((time.time() * 1000, times.user + times.system))
        self.peak_rss_mb = max(self.peak_rss_mb, rss / 1e6)

    def cpu_s(self, from_ms: float, to_ms: float) -> float:
        """CPU seconds between two times, ms since the epoch."""
        at_ms, cpu_s = zip(*self._samples, strict=True)
        first, last = np.interp([from_ms, to_ms], at_ms, cpu_s)
        return float(last - first)
