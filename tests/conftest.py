"""What all tests share: the one real broker, fresh topics, processes that never outlive their test.

Test functions may be coroutines. They run under blockbuster, which fails what blocks the event
loop in our packages.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from hypothesis import settings

from driftgate.broker import Broker, choose_broker
from driftgate.topics import ensure_topics
from schemas.settings import KafkaSettings
from tests.support.processes import Driftgate, Launch, environment

# How long an example takes depends on what else the machine does.
settings.register_profile("driftgate", deadline=None)
settings.load_profile("driftgate")

_BROKER = pytest.StashKey[Broker]()
_STARTED = pytest.StashKey[list[Driftgate]]()
_SCANNED = ["analyzer", "driftgate", "schemas", "streams"]


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The broker of this session: a test that needs one fails when there is none."""
    with choose_broker(os.environ, for_tests=True) as found:
        request.config.stash[_BROKER] = found
        yield found


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    """Topics of the test's own: 2 partitions of prompts, 1 of the log and its like."""
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"t-{uuid.uuid4().hex[:8]}.",
        prompt_partitions=2,
        service_partitions=1,
    )
    asyncio.run(ensure_topics(settings))
    return settings


@pytest.fixture
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launch]:
    """Starts `driftgate` processes; all are ended with the test, and shown when it fails."""
    started: list[Driftgate] = []
    request.node.stash[_STARTED] = started

    def start(*arguments: str, kafka: KafkaSettings, **variables: str) -> Driftgate:
        log = tmp_path / f"{len(started)}-{arguments[0]}.log"
        started.append(Driftgate(arguments, environment(kafka, tmp_path, **variables), log))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs coroutines, and fails them for blocking the loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    guard = BlockBuster(_SCANNED)
    for function in guard.functions.values():
        # What it reads is /proc, which is no disk.
        function.can_block_in("psutil/_common.py", {"cat"})
        function.can_block_in("tests/support/contract.py", {"assert_valid"})
    guard.activate()
    try:
        asyncio.run(pyfuncitem.obj(**arguments))
    finally:
        guard.deactivate()
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Puts the logs of a failed test's processes into its report."""
    report = yield
    if report.failed:
        for process in item.stash.get(_STARTED, []):
            report.sections.append((f"log of {process}", process.log_tail()))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Names the broker that the tests ran on."""
    found = config.stash.get(_BROKER, None)
    used = found.describe() if found else "none was needed by the chosen tests"
    terminalreporter.write_line(f"broker: {used}")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Quick tests first: a mistake shows before a broker has started."""
    order = ("unit", "contract", "integration", "e2e", "chaos")

    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(order) if name in item.path.parts), len(order))

    items[:] = sorted(items, key=place)  # type: ignore[index]  # pytest's own list
