from __future__ import annotations

import asyncio
import socket

import pytest

from driftgate.broker.errors import BrokerUnreachableError
from driftgate.broker.probe import probe_cluster


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":9092", "host:0", "host:x", "host:70000"]
)
def test_address_of_the_wrong_form_is_named_as_such(address: str) -> None:
    """A typing error is told from a broker that is away."""
    with pytest.raises(BrokerUnreachableError, match=r"write host:port"):
        probe_cluster(address, 1)


def test_refused_connections_are_all_named() -> None:
    """Each address of the list appears with its reason."""
    with pytest.raises(BrokerUnreachableError) as caught:
        probe_cluster("127.0.0.1:1, 127.0.0.1:2", 5)
    assert str(caught.value) == (
        "no Kafka broker answers (127.0.0.1:1: Connection refused; 127.0.0.1:2: Connection refused)"
    )


def test_listener_that_never_answers_is_given_up_in_time() -> None:
    """A port that accepts and says nothing is no broker."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerUnreachableError, match=r"something listens, but .* 0\.5 s"):
            probe_cluster(address, 0.5)


def test_probe_may_be_called_while_an_event_loop_runs() -> None:
    """It has a loop of its own, so a coroutine that calls it gets the answer, not an error."""

    async def call() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            probe_cluster(f"127.0.0.1:{server.getsockname()[1]}", 0.3)

    with pytest.raises(BrokerUnreachableError, match="something listens"):
        asyncio.run(call())
