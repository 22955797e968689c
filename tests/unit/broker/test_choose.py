from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from driftgate.broker.choose import Broker, Kind, Rung, choose_broker, first_rung
from driftgate.broker.container import container_environment, kafka_container
from driftgate.broker.errors import BrokerError, BrokerStartError, BrokerUnreachableError


def works(kind: Kind, trace: list[str]) -> Rung:
    @contextmanager
    def run() -> Iterator[Broker]:
        trace.append(f"{kind} opened")
        yield Broker(bootstrap_servers="h:1", kind=kind, reason="it works", version="v")
        trace.append(f"{kind} closed")

    return Rung(kind=kind, open=run)


def fails(kind: Kind, *, is_last_word: bool = False) -> Rung:
    def run() -> AbstractContextManager[Broker]:
        raise BrokerStartError(f"no {kind} today")

    return Rung(kind=kind, open=run, is_last_word=is_last_word)


def test_first_rung_that_works_is_held_and_later_ones_never_opened() -> None:
    """Order is rank, and the broker is closed when the block ends."""
    trace: list[str] = []
    rungs = [fails("external"), works("testcontainers", trace), works("embedded", trace)]
    with first_rung(rungs, ["known before"]) as broker:
        assert broker.kind == "testcontainers"
        assert broker.given_up == ("known before", "external: no external today")
        assert trace == ["testcontainers opened"]
    assert trace == ["testcontainers opened", "testcontainers closed"]


def test_broker_is_closed_when_the_block_fails() -> None:
    """An error of the block is neither swallowed nor taken for one of the rung."""
    closed: list[str] = []

    @contextmanager
    def run() -> Iterator[Broker]:
        try:
            yield Broker(bootstrap_servers="h:1", kind="embedded", reason="", version="")
        finally:
            closed.append("yes")

    with (
        pytest.raises(BrokerError, match="of the block"),
        first_rung([Rung(kind="external", open=run), works("embedded", closed)]),
    ):
        raise BrokerError("of the block")
    assert closed == ["yes"]


def test_last_rung_fails_with_the_reasons_of_all() -> None:
    """Nothing that was tried is lost from the message."""
    with (
        pytest.raises(BrokerStartError) as caught,
        first_rung([fails("external"), fails("testcontainers"), fails("embedded")]),
    ):
        pass
    assert str(caught.value) == (
        "no embedded today\nnot used either: external: no external today; "
        "testcontainers: no testcontainers today"
    )


def test_rung_that_is_the_last_word_is_not_passed_over() -> None:
    """What the user asked for by name is used or refused."""
    trace: list[str] = []
    with (
        pytest.raises(BrokerStartError, match=r"^no external today$"),
        first_rung([fails("external", is_last_word=True), works("embedded", trace)]),
    ):
        pass
    assert trace == []


def test_description_says_what_where_and_why() -> None:
    """One line that the demo and the test run print."""
    broker = Broker(
        bootstrap_servers="127.0.0.1:9",
        kind="embedded",
        reason="needs nothing",
        version="Apache Kafka 4.3.1",
        given_up=("external: not set",),
    )
    assert broker.describe() == (
        "Apache Kafka 4.3.1 at 127.0.0.1:9 (embedded: needs nothing; not: external: not set)"
    )


def test_named_broker_that_is_away_is_an_error_outside_tests() -> None:
    """The demo does not go to another broker than the one the user named."""
    environ = {"DRIFTGATE_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with (
        pytest.raises(BrokerUnreachableError) as caught,
        choose_broker(environ),
    ):
        pass
    message = str(caught.value)
    assert "DRIFTGATE_BOOTSTRAP_SERVERS=127.0.0.1:1" in message
    assert "Connection refused" in message
    assert "unset it" in message


@contextmanager
def silent_engine(path: Path) -> Iterator[None]:
    """A Docker socket that accepts and never answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def test_docker_engine_that_hangs_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that accepts and says nothing costs the bound, not the test run."""
    with silent_engine(tmp_path / "docker.sock"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'docker.sock'}")
        with (
            pytest.raises(BrokerStartError, match=r"did not run apache/kafka:.* within 0\.5 s"),
            kafka_container(0.5),
        ):
            pass


def test_docker_engine_that_is_away_is_given_up_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket: the reason names it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'none.sock'}")
    with (
        pytest.raises(BrokerStartError, match=r"no Docker engine answers at unix://.*none\.sock"),
        kafka_container(20),
    ):
        pass


def test_docker_engine_that_refuses_is_given_up_with_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers with an error is none that can be used."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 500 broken\r\n\r\n")

        thread = Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(BrokerStartError, match="500 broken"), kafka_container(20):
            pass
        thread.join()


def test_container_gets_the_settings_of_the_embedded_broker() -> None:
    """Clients come in by the published port; the broker's own calls stay inside."""
    environment = container_environment("docker.example", 40123)
    assert environment["KAFKA_ADVERTISED_LISTENERS"].startswith("PLAINTEXT://docker.example:40123,")
    assert environment["KAFKA_INTER_BROKER_LISTENER_NAME"] == "INTERNAL"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
