"""Reads the cause of a failure out of a broker's log."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["cause_in_log", "last_lines"]

# A stack trace's head, for example `org.apache.kafka.common.KafkaException: Socket server …`.
_EXCEPTION = re.compile(
    r'^(?:Caused by: |Exception in thread "[^"]*" )?'
    r"(?:[\w$]+\.)+[\w$]*(?:Exception|Error): (?P<what>.+)$"
)
_FRAME = re.compile(r"^\s+(?:at |\.\.\. \d+ more)")

# Enough of the end of a log for its last stack traces, in bytes.
_TAIL_BYTES = 256 * 1024


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def cause_in_log(path: Path) -> str | None:
    """The message of the first exception in the log, which is the cause of the later ones."""
    for line in _tail(path):
        if found := _EXCEPTION.match(line):
            return found["what"]
    return None


def last_lines(path: Path, count: int = 12) -> str:
    """The last lines of a log without stack frames, each cut at 300 characters."""
    lines = [line[:300] for line in _tail(path) if line.strip() and not _FRAME.match(line)]
    return "\n".join(lines[-count:])
