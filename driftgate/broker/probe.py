"""Asks whether a Kafka broker answers at an address, in bounded time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import dataclass

from driftgate.broker.errors import BrokerUnreachableError

__all__ = ["ClusterAnswer", "probe_cluster"]

# Bound of one TCP connect of the first look, in seconds: hosts that drop packets answer never.
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ClusterAnswer:
    """What a cluster said of itself.

    Attributes:
        cluster_id: Kafka's id of the cluster.
        nodes: `host:port` of each broker, as advertised to clients.
    """

    cluster_id: str
    nodes: tuple[str, ...]


def probe_cluster(bootstrap_servers: str, timeout_s: float) -> ClusterAnswer:
    """Asks a cluster for its metadata, by way of an address that it advertises.

    Blocks; may be called with or without a running event loop in this thread.

    Args:
        bootstrap_servers: `host:port`, several separated by commas.
        timeout_s: for everything together, in seconds, > 0.

    Raises:
        BrokerUnreachableError: no broker answered in time; says why.
    """
    deadline = time.monotonic() + timeout_s
    _connect_to_any(bootstrap_servers, deadline)
    outcome: list[ClusterAnswer | BaseException] = []

    def ask() -> None:
        left_s = max(0.1, deadline - time.monotonic())
        try:
            outcome.append(asyncio.run(asyncio.wait_for(_describe(bootstrap_servers), left_s)))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread below
            outcome.append(error)

    # An own thread: the caller's may be running an event loop.
    thread = threading.Thread(target=ask, name="broker-probe", daemon=True)
    thread.start()
    thread.join()
    [answer] = outcome
    if isinstance(answer, ClusterAnswer):
        return answer
    why = f"no answer within {timeout_s:g} s" if isinstance(answer, TimeoutError) else str(answer)
    raise BrokerUnreachableError(
        f"no Kafka broker answers at {bootstrap_servers}: something listens, but {why}"
    ) from answer


def _connect_to_any(bootstrap_servers: str, deadline: float) -> None:
    """A plain connect first: quick, and its errors are clearer than those of a Kafka client."""
    failures = []
    for address in bootstrap_servers.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise BrokerUnreachableError(
                f"{bootstrap_servers!r} is no list of broker addresses; write host:port[,host:port]"
            )
        left_s = max(0.1, min(_CONNECT_TIMEOUT_S, deadline - time.monotonic()))
        try:
            socket.create_connection((host.strip("[]"), int(port)), left_s).close()
        except OSError as error:
            failures.append(f"{address.strip()}: {error.strerror or error}")
        else:
            return
    raise BrokerUnreachableError(f"no Kafka broker answers ({'; '.join(failures)})")


async def _describe(bootstrap_servers: str) -> ClusterAnswer:
    # Here: it takes 0.3 s, and a session that never asks needs no Kafka client.
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415

    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers, client_id="driftgate-probe", request_timeout_ms=5000
    )
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    return ClusterAnswer(
        cluster_id=str(cluster["cluster_id"]),
        nodes=tuple(f"{node['host']}:{node['port']}" for node in cluster["brokers"]),
    )
