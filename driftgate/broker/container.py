"""Kafka in a container, by testcontainers, for tests on machines with a Docker engine.

Everything here runs in a worker thread with one deadline: an engine that hangs, or an image that
takes minutes to come, must cost a test run seconds. A pull that was given up goes on in the
engine, so a later run may find the image.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from driftgate.broker.artefacts import KAFKA_VERSION
from driftgate.broker.errors import BrokerStartError, BrokerUnreachableError
from driftgate.broker.ports import free_ports
from driftgate.broker.probe import probe_cluster
from driftgate.broker.settings import COMMON

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

__all__ = ["IMAGE", "container_environment", "kafka_container"]

# The same Kafka as the embedded one.
IMAGE = f"apache/kafka:{KAFKA_VERSION}"

# Inside the container. Clients on the host come in by _CLIENT_PORT; the broker's own calls (the
# transaction coordinator's, for one) stay inside.
_CLIENT_PORT = 9092
_CONTROLLER_PORT = 29093
_INTERNAL_PORT = 19092
# Between two looks at a starting broker.
_POLL_S = 0.2
# An engine on this machine answers a ping in milliseconds.
_ENGINE_TIMEOUT_S = 5
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def container_environment(host: str, port: int) -> dict[str, str]:
    """The settings of a broker in a container, in the form that the image reads.

    Args:
        host: where clients reach the engine's machine.
        port: the port on that machine.
    """
    properties: Mapping[str, str] = {
        **COMMON,
        "listeners": f"PLAINTEXT://:{_CLIENT_PORT},INTERNAL://:{_INTERNAL_PORT},"
        f"CONTROLLER://:{_CONTROLLER_PORT}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port},INTERNAL://localhost:{_INTERNAL_PORT}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,"
        "CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER_PORT}",
    }
    return {f"KAFKA_{key.replace('.', '_').upper()}": value for key, value in properties.items()}


@contextmanager
def kafka_container(timeout_s: float) -> Iterator[str]:
    """Runs Kafka in a container while the block runs.

    Args:
        timeout_s: bound of everything up to the broker's first answer, in seconds, > 0; the
            image's pull included.

    Yields:
        The bootstrap address.

    Raises:
        BrokerStartError: it cannot be had; says why.
    """
    deadline = time.monotonic() + timeout_s
    given_up = threading.Event()
    outcome: SimpleQueue[tuple[DockerContainer, str] | Exception] = SimpleQueue()

    def run() -> None:
        try:
            container, address = _start()
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread below
            outcome.put(error)
            return
        outcome.put((container, address))
        if given_up.is_set():
            container.stop()

    threading.Thread(target=run, name="broker-container", daemon=True).start()
    try:
        started = outcome.get(timeout=timeout_s)
    except Empty:
        given_up.set()
        raise BrokerStartError(
            f"the Docker engine did not run {IMAGE} within {timeout_s:g} s (an image that is "
            "still being pulled may be there next time)"
        ) from None
    if isinstance(started, Exception):
        raise BrokerStartError(str(started) or type(started).__name__) from started
    container, address = started
    try:
        _wait_until_it_answers(address, deadline)
        yield address
    finally:
        container.stop()


def _start() -> tuple[DockerContainer, str]:
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - tests only
        from testcontainers.core.docker_client import (  # noqa: PLC0415
            DockerClient,
            get_docker_host,
        )
    except ImportError as error:
        raise BrokerStartError("the Python package testcontainers is not installed") from error
    _ping_engine(get_docker_host() or _DEFAULT_ENGINE)
    engine = DockerClient(timeout=_ENGINE_TIMEOUT_S)
    host = engine.host()
    port, _ = free_ports(None)
    container = DockerContainer(IMAGE).with_bind_ports(_CLIENT_PORT, port)
    container.with_envs(**container_environment(host, port)).start()
    return container, f"{host}:{port}"


def _ping_engine(url: str) -> None:
    """Asks an engine on a local socket whether it is there.

    Plain sockets: the Docker client's errors are long, and it leaves an open socket behind.
    """
    if not url.startswith("unix://"):
        return
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ENGINE_TIMEOUT_S)
            connection.connect(url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            answer = connection.recv(64)
    except OSError as error:
        raise BrokerStartError(
            f"no Docker engine answers at {url} ({error.strerror or error})"
        ) from error
    if b" 200 " not in answer:
        raise BrokerStartError(f"no Docker engine answers at {url} (it said {answer!r})")


def _wait_until_it_answers(address: str, deadline: float) -> None:
    while True:
        try:
            probe_cluster(address, max(0.1, min(5.0, deadline - time.monotonic())))
        except BrokerUnreachableError as error:
            if time.monotonic() >= deadline:
                raise BrokerStartError(f"{IMAGE} runs, but in time {error}") from error
            time.sleep(_POLL_S)
        else:
            return
