"""The one place that decides which Kafka broker the demo and the tests use, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from driftgate.broker.artefacts import Progress
from driftgate.broker.container import IMAGE, kafka_container
from driftgate.broker.embedded import EmbeddedKafka
from driftgate.broker.errors import BrokerError, BrokerUnreachableError
from driftgate.broker.probe import probe_cluster

__all__ = ["BOOTSTRAP_VARIABLE", "Broker", "Kind", "Rung", "choose_broker", "first_rung"]

# Names a broker of the user's own, as `host:port[,host:port]`.
BOOTSTRAP_VARIABLE = "DRIFTGATE_BOOTSTRAP_SERVERS"

# What a broker that cannot be had may cost, in seconds. Less fails on slow but living brokers.
_RUNG_TIMEOUT_S = 20.0

Kind = Literal["external", "testcontainers", "embedded"]


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that answered.

    Attributes:
        bootstrap_servers: its address for clients.
        kind: where it comes from.
        reason: why this one.
        version: what runs, as far as is known.
        given_up: the better-ranked brokers that could not be had, each with the reason.
        pid: process id of an embedded broker's Java.
        log_path: an embedded broker's log.
    """

    bootstrap_servers: str
    kind: Kind
    reason: str
    version: str
    given_up: tuple[str, ...] = ()
    pid: int | None = None
    log_path: Path | None = None

    def describe(self) -> str:
        """One line for people: what, where, and why."""
        before = f"; not: {'; '.join(self.given_up)}" if self.given_up else ""
        return f"{self.version} at {self.bootstrap_servers} ({self.kind}: {self.reason}{before})"


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to a broker.

    Attributes:
        kind: what it gives.
        open: runs the broker while the context is held; a BrokerError on entry: not to be had.
        is_last_word: the user asked for this one, so its error is final.
    """

    kind: Kind
    open: Callable[[], AbstractContextManager[Broker]]
    is_last_word: bool = False


@contextmanager
def first_rung(rungs: Sequence[Rung], given_up: Sequence[str] = ()) -> Iterator[Broker]:
    """Holds the first broker that can be had.

    Args:
        rungs: ways to a broker, best first, at least one.
        given_up: reasons that are known before.

    Raises:
        BrokerError: the last one, or one that is the last word, cannot be had; its message names
            the reasons of those before.
    """
    reasons = list(given_up)
    with ExitStack() as stack:
        broker = _first(rungs, reasons, stack)
        yield replace(broker, given_up=tuple(reasons))


def _first(rungs: Sequence[Rung], reasons: list[str], stack: ExitStack) -> Broker:
    *before_last, last = rungs
    for rung in before_last:
        try:
            return stack.enter_context(rung.open())
        except BrokerError as error:
            if rung.is_last_word:
                raise
            reasons.append(f"{rung.kind}: {error}")
    try:
        return stack.enter_context(last.open())
    except BrokerError as error:
        before = f"\nnot used either: {'; '.join(reasons)}" if reasons else ""
        raise type(error)(f"{error}{before}") from error


@contextmanager
def choose_broker(
    environ: Mapping[str, str],
    *,
    for_tests: bool = False,
    data_dir: Path | None = None,
    port: int | None = None,
    progress: Progress | None = None,
    rung_timeout_s: float = _RUNG_TIMEOUT_S,
) -> Iterator[Broker]:
    """Holds the broker to use while the block runs.

    In this order: the one named by DRIFTGATE_BOOTSTRAP_SERVERS; for tests, one in a container;
    the embedded one. A named broker that does not answer is an error, except in tests.

    Args:
        environ: the environment, for the variable and for finding Java and the cache folder.
        for_tests: whether containers may be used, and a silent named broker passed over.
        data_dir: keeps the embedded broker's topics; default: a temporary folder.
        port: the embedded broker's; default: a free one.
        progress: told what is fetched and started.
        rung_timeout_s: bound for a broker that cannot be had, in seconds. The embedded one may
            take longer where its jars have to be fetched; that shows progress.

    Raises:
        BrokerError: no broker can be had; says why for each.
    """
    rungs: list[Rung] = []
    given_up: list[str] = []
    named = environ.get(BOOTSTRAP_VARIABLE, "").strip()
    if named:
        rungs.append(
            Rung(
                kind="external",
                open=lambda: _external(named, rung_timeout_s),
                is_last_word=not for_tests,
            )
        )
    else:
        given_up.append(f"external: {BOOTSTRAP_VARIABLE} is not set")
    if for_tests:
        rungs.append(Rung(kind="testcontainers", open=lambda: _container(rung_timeout_s)))
    rungs.append(Rung(kind="embedded", open=lambda: _embedded(environ, data_dir, port, progress)))
    with first_rung(rungs, given_up) as broker:
        yield broker


@contextmanager
def _external(named: str, timeout_s: float) -> Iterator[Broker]:
    try:
        answer = probe_cluster(named, timeout_s)
    except BrokerUnreachableError as error:
        raise BrokerUnreachableError(
            f"{BOOTSTRAP_VARIABLE}={named}: {error}. Start that broker, correct the variable, or "
            "unset it to use the embedded broker"
        ) from error
    yield Broker(
        bootstrap_servers=named,
        kind="external",
        reason=f"named by {BOOTSTRAP_VARIABLE}",
        version=f"Kafka cluster {answer.cluster_id} with {len(answer.nodes)} broker(s)",
    )


@contextmanager
def _container(timeout_s: float) -> Iterator[Broker]:
    with kafka_container(timeout_s) as address:
        yield Broker(
            bootstrap_servers=address,
            kind="testcontainers",
            reason="a Docker engine answers",
            version=f"Apache Kafka in {IMAGE}",
        )


@contextmanager
def _embedded(
    environ: Mapping[str, str], data_dir: Path | None, port: int | None, progress: Progress | None
) -> Iterator[Broker]:
    with EmbeddedKafka(data_dir=data_dir, port=port, environ=environ, progress=progress) as kafka:
        yield Broker(
            bootstrap_servers=kafka.bootstrap_servers,
            kind="embedded",
            reason="needs nothing but Python packages",
            version=kafka.version,
            pid=kafka.pid,
            log_path=kafka.log_path,
        )
