"""Folds a log from its beginning, without Kafka: what an undisturbed monitor would have said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from streams.fold import LogEntry, step
from streams.outputs import Output
from streams.state import ServiceState, new_state

__all__ = ["KeyedEntry", "fold_records"]


class KeyedEntry(NamedTuple):
    """A record of the log with the key that says whose it is."""

    key: bytes | None
    entry: LogEntry


def fold_records(records: Iterable[KeyedEntry]) -> dict[str, tuple[ServiceState, list[Output]]]:
    """Fold records of one partition of the log, in its order.

    Args:
        records: from the beginning of the log; one without a key belongs to nobody and is passed
            over, one that was folded before changes nothing.

    Returns:
        For each service its state in the end, and all that was said on the way there.
    """
    services: dict[str, tuple[ServiceState, list[Output]]] = {}
    for key, entry in records:
        if not key:
            continue
        service = key.decode("utf-8", "replace")
        if service not in services:
            services[service] = (new_state(service), [])
        state, outputs = services[service]
        outputs += step(state, entry)
    return services
