"""What a process says of itself, as Prometheus would ask it."""

from __future__ import annotations

import re
import urllib.request

from tests.support.processes import Driftgate

__all__ = ["metrics_of"]


def metrics_of(process: Driftgate) -> dict[str, float]:
    """What `/metrics` says, by name and labels."""
    process.wait_for_log("metrics on http://127.0.0.1:")
    found = re.search(r"metrics on (http://127\.0\.0\.1:\d+/metrics)", process.log)
    assert found
    with urllib.request.urlopen(found[1], timeout=10) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("driftgate_"))
    return {name: float(value) for name, value in pairs}
