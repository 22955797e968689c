"""Locks between processes, by a file; the kernel frees them when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked", "take_lock"]

# Between two tries. Short against what is waited for (a download, a broker's stop: seconds).
_POLL_S = 0.1


def take_lock(path: Path, timeout_s: float) -> int | None:
    """Takes the exclusive lock of a file, made when missing.

    The lock belongs to the open file description: a process that inherits the descriptor holds
    it too, and it is free when the last of them has closed it.

    Args:
        path: the lock file; its folder exists.
        timeout_s: how long to wait for another holder, in seconds, >= 0.

    Returns:
        The open descriptor (closing it frees the lock), or None when another process still
        holds the lock after `timeout_s`.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(_POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[bool]:
    """Holds the lock of a file while the block runs.

    Args:
        path: the lock file; its folder exists.
        timeout_s: how long to wait for another holder, in seconds, >= 0.

    Yields:
        Whether the lock was had; False: the time was up, and the block runs without it.
    """
    descriptor = take_lock(path, timeout_s)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
