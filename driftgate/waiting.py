"""Waiting for a broker that is not there yet, and saying so."""

from __future__ import annotations

import logging
import time

from driftgate.broker import BrokerUnreachableError, ClusterAnswer, probe_cluster
from driftgate.errors import DriftgateError, Exit

__all__ = ["require_broker", "wait_for_broker"]

log = logging.getLogger("driftgate")

_PROBE_S = 5.0
_BACKOFF_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts; the last one repeats."""


def wait_for_broker(bootstrap_servers: str) -> ClusterAnswer:
    """Wait for as long as it takes; what a service does that somebody else keeps running."""
    attempt = 0
    while True:
        try:
            return probe_cluster(bootstrap_servers, _PROBE_S)
        except BrokerUnreachableError as error:
            pause_s = _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]
            attempt += 1
            log.warning(
                "%s; trying again in %g s (DRIFTGATE_BOOTSTRAP_SERVERS says where Kafka is)",
                error,
                pause_s,
            )
            time.sleep(pause_s)


def require_broker(bootstrap_servers: str) -> ClusterAnswer:
    """The broker's answer, or the end of a command that a person is waiting for.

    Raises:
        DriftgateError: it does not answer within 5 s.
    """
    try:
        return probe_cluster(bootstrap_servers, _PROBE_S)
    except BrokerUnreachableError as error:
        raise DriftgateError(
            f"{error}. Start it (`driftgate broker`), or say where Kafka is with --bootstrap or "
            "DRIFTGATE_BOOTSTRAP_SERVERS",
            Exit.BROKER,
        ) from error
