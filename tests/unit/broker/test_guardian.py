"""The guardian with small programs in Java's place: what it does is the same for any program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from driftgate.broker import guardian
from driftgate.broker.child import GuardedJava
from driftgate.broker.layout import Layout, prepare_layout
from driftgate.broker.locking import take_lock

SLEEP = ["/bin/sleep", "600"]


def eventually(what: str, condition: object) -> None:
    """Waits at most 20 s for a condition."""
    assert callable(condition)
    deadline = monotonic() + 20
    while not condition():
        assert monotonic() < deadline, f"not within 20 s: {what}"
        sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return prepare_layout(None)


def run(layout: Layout, argv: list[str], prepare: list[list[str]] | None = None) -> GuardedJava:
    lock = take_lock(layout.lock, 0)
    assert lock is not None
    try:
        return GuardedJava(prepare or [], argv, layout, lock)
    finally:
        os.close(lock)


def test_end_stops_the_program_and_removes_what_is_temporary(layout: Layout) -> None:
    """After `end` there is no process, no folder and no log."""
    child = run(layout, SLEEP)
    pid = child.pid
    assert psutil.Process(pid).cmdline() == SLEEP
    child.end(keep_log=False)
    assert is_gone(pid)
    assert not child.is_running
    assert not layout.folder.exists()
    assert not layout.log.exists()


def test_log_outlives_the_folder_when_its_owner_wants_it(layout: Layout) -> None:
    """The evidence of a failed start stays, and holds what the program said."""
    child = run(layout, ["/bin/sh", "-c", "echo said; exec sleep 600"])
    assert child.pid
    eventually("the log", lambda: layout.log.read_text() == "said\n")
    child.end(keep_log=True)
    assert layout.log.read_text() == "said\n"
    assert not layout.folder.exists()


def test_program_that_ends_by_itself_is_noticed_and_its_log_kept(layout: Layout) -> None:
    """Even with code 0: a broker does not end unasked."""
    child = run(layout, ["/bin/sh", "-c", "echo why; exit 0"])
    eventually("the guardian's end", lambda: not child.is_running)
    assert layout.log.read_text() == "why\njava ended by itself with 0\n"
    assert not layout.folder.exists()
    child.end(keep_log=True)


def test_preparation_runs_before_and_its_failure_ends_all(layout: Layout) -> None:
    """A failed format never leads to a start."""
    prepare = [["/bin/sh", "-c", "echo first"], ["/bin/sh", "-c", "echo second; exit 3"]]
    child = run(layout, ["/bin/sh", "-c", "echo started"], prepare)
    eventually("the guardian's end", lambda: not child.is_running)
    assert layout.log.read_text() == "first\nsecond\njava ended by itself with 3\n"
    child.end(keep_log=True)


def test_end_during_the_preparation_never_starts_the_program(layout: Layout) -> None:
    """An owner that gives up early gets no late broker."""
    child = run(layout, ["/bin/sh", "-c", "echo started; exec sleep 600"], [SLEEP])
    eventually("the log", layout.log.exists)
    child.end(keep_log=True)
    assert layout.log.read_text() == ""


def test_missing_program_is_told_in_the_log(layout: Layout) -> None:
    """The reason is where the owner looks for it."""
    child = run(layout, ["/no/such/java"])
    eventually("the guardian's end", lambda: not child.is_running)
    assert "cannot run /no/such/java" in layout.log.read_text()
    child.end(keep_log=True)


def test_folder_stays_locked_until_the_program_has_ended(layout: Layout) -> None:
    """The guardian holds the lock that its owner took."""
    child = run(layout, SLEEP)
    assert child.pid
    assert take_lock(layout.lock, 0) is None
    child.end(keep_log=False)
    layout.folder.mkdir()
    lock = take_lock(layout.lock, 0)
    assert lock is not None
    os.close(lock)


def start_raw(
    tmp_path: Path, argv: list[str], stop_s: float
) -> tuple[subprocess.Popen[bytes], int]:
    """A guardian by hand; returns it and the pid of its program."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    spec = {
        "prepare": [],
        "run": argv,
        "log": str(tmp_path / "log"),
        "cwd": str(tmp_path),
        "stop_s": stop_s,
        "remove": [],
        "remove_after_stop": [],
    }
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(spec).encode() + b"\n")
    process.stdin.flush()
    return process, int(process.stdout.readline().split()[1])


def test_program_that_ignores_sigterm_is_killed_after_the_bound(tmp_path: Path) -> None:
    """End-of-file on the pipe ends even a stuck program."""
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    process, pid = start_raw(tmp_path, stubborn, 0.3)
    with process:
        eventually("the trap", lambda: (tmp_path / "log").read_text() == "ready\n")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
        assert is_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_of_the_guardian_takes_the_program_along(tmp_path: Path) -> None:
    """Kill -9 leaves it no moment to act, so the kernel does."""
    process, pid = start_raw(tmp_path, SLEEP, 5)
    with process:
        process.kill()
        process.wait(20)
        eventually("the program's end", lambda: is_gone(pid))


def test_sigterm_to_the_guardian_stops_the_program_in_order(tmp_path: Path) -> None:
    """A machine that shuts down sends SIGTERM to everybody."""
    process, pid = start_raw(tmp_path, SLEEP, 5)
    with process:
        process.terminate()
        assert process.wait(20) == 0
        assert is_gone(pid)


def test_sigint_does_not_reach_the_program(tmp_path: Path) -> None:
    """A Ctrl-C is the owner's to act on."""
    process, pid = start_raw(tmp_path, SLEEP, 5)
    with process:
        os.killpg(process.pid, signal.SIGINT)
        sleep(0.3)
        assert process.poll() is None
        assert not is_gone(pid)
        process.terminate()
        process.wait(20)


def test_owner_that_dies_while_its_fork_holds_the_pipe_is_noticed(tmp_path: Path) -> None:
    """A forked child keeps the pipe open; the guardian sees its parent's end all the same."""
    script = f"""
import json, os, subprocess, sys
sys.path.insert(0, {str(Path(guardian.__file__).parents[2])!r})
process = subprocess.Popen(
    [sys.executable, "-I", "-S", {guardian.__file__!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
spec = dict(prepare=[], run={SLEEP!r}, log={str(tmp_path / "log")!r}, cwd="/", stop_s=5,
            remove=[], remove_after_stop=[])
process.stdin.write(json.dumps(spec).encode() + b"\\n"); process.stdin.flush()
pid = int(process.stdout.readline().split()[1])
fork = os.fork()
if fork == 0:
    os.close(1)
    import time; time.sleep(60)
print(json.dumps([pid, fork]), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False
    )
    pid, fork = json.loads(done.stdout)
    try:
        eventually("the program's end", lambda: is_gone(pid))
        assert not is_gone(fork)
    finally:
        os.kill(fork, signal.SIGKILL)
