"""Ports on 127.0.0.1 for a broker."""

from __future__ import annotations

import socket

from driftgate.broker.errors import BrokerStartError

__all__ = ["check_port", "free_ports"]


def check_port(port: int) -> None:
    """Says at once what Kafka would say after two seconds.

    Raises:
        BrokerStartError: nothing can listen on 127.0.0.1:port.
    """
    if not 0 < port < 65536:
        raise BrokerStartError(f"{port} is no port; choose one from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BrokerStartError(
                f"the broker cannot listen on 127.0.0.1:{port}: {error.strerror}. End what uses "
                "the port, choose another one, or name none to get a free one"
            ) from error


def free_ports(wanted: int | None) -> tuple[int, int]:
    """A port for clients (the wanted one, when given) and another one for the controller."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, controller_port = first.getsockname()[1], second.getsockname()[1]
    if wanted is None:
        return port, controller_port
    return wanted, port if controller_port == wanted else controller_port
