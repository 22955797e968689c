"""What is tried again, what is given up, and what only looks like it (bad input: a sick MLflow)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.errors import SinkMissingError, SinkRefusedError, SinkUnavailableError
from streams.tracking.mlflow_caller import SUSPECT_AFTER, Caller, StoppedError
from streams.tracking.telemetry import TrackerTelemetry
from tests.support.workers import until


def failing(*errors: Exception) -> Callable[[], str]:
    """A call that fails so, one after the other, and then succeeds."""
    left: Iterator[Exception] = iter(errors)

    def call() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "done"

    return call


def always(error: Exception) -> Callable[[], str]:
    def call() -> str:
        raise error

    return call


AWAY, BAD = SinkUnavailableError("away"), SinkRefusedError("bad")


class Called:
    """A caller without pauses, and what it saw."""

    def __init__(self, probe: Callable[[], object] = lambda: None) -> None:
        self.stopping = asyncio.Event()
        self.telemetry = TrackerTelemetry(0.1)
        self.caller = Caller(probe, self.telemetry, self.stopping, retry_seconds=(0.0,))

    def run(self, function: Callable[[], Any]) -> Any:
        return asyncio.run(self.caller.call("a trace", function))


def test_a_call_is_made_until_it_succeeds() -> None:
    """Each failure is counted; in the end MLflow is there."""
    called = Called(probe=always(AWAY))
    assert called.run(failing(*[AWAY] * 20)) == "done"
    assert called.telemetry.failures == 20
    assert called.telemetry.available


def test_a_refusal_counts_when_other_things_are_taken() -> None:
    """Then it is about what was sent, and is handed on at once."""
    called = Called()
    with pytest.raises(SinkRefusedError, match="bad"):
        called.run(always(BAD))
    assert called.telemetry.failures == 0


def test_a_refusal_of_a_sick_server_is_no_refusal() -> None:
    """It refuses everything: what was sent is kept, and succeeds when it is well again."""
    called = Called(probe=failing(AWAY, BAD, AWAY))
    assert called.run(failing(BAD, BAD, BAD)) == "done"
    assert called.telemetry.failures == 3


def test_what_always_fails_while_all_else_succeeds_is_given_up() -> None:
    """A server may answer 500 to a single record: it must not hold up the rest for ever."""
    called = Called()
    with pytest.raises(SinkRefusedError, match=f"failed {SUSPECT_AFTER} times while other things"):
        called.run(always(AWAY))
    assert called.telemetry.failures == SUSPECT_AFTER - 1


def test_what_fails_with_all_else_is_never_given_up() -> None:
    """Fifty failures are no proof while nothing else is taken either."""
    called = Called(probe=always(AWAY))
    assert called.run(failing(*[AWAY] * 50)) == "done"


def test_what_is_missing_is_said_at_once() -> None:
    """Feedback on a trace that is not there is not tried again."""
    called = Called(probe=always(AWAY))
    with pytest.raises(SinkMissingError):
        called.run(always(SinkMissingError("no such trace")))


def test_a_stop_ends_the_waiting() -> None:
    """What was not taken is not committed: the next start reads it again."""

    async def run() -> None:
        called = Called(probe=always(AWAY))
        caller = Caller(always(AWAY), called.telemetry, called.stopping, retry_seconds=(3600.0,))
        task = asyncio.create_task(caller.call("a trace", always(AWAY)))
        await until("the first failure", lambda: called.telemetry.failures)
        called.stopping.set()
        with pytest.raises(StoppedError):
            await task

    asyncio.run(run())


def test_calls_are_made_one_after_the_other() -> None:
    """Two tasks share the thread: SQLite has one writer."""
    running, overlaps = threading.Lock(), []

    def call() -> None:
        overlaps.append(not running.acquire(blocking=False))
        running.release()

    async def run() -> None:
        called = Called()
        await asyncio.gather(*(called.caller.call("x", call) for _ in range(50)))

    asyncio.run(run())
    assert overlaps == [False] * 50


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    """The wait for it can be ended, and neither loop nor interpreter waits for its thread."""
    well, begun = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def hang() -> None:
        threads.append(threading.current_thread())
        begun.set()
        well.wait()

    async def run() -> None:
        task = asyncio.create_task(Called().caller.call("a trace", hang))
        await until("it hangs", begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(run())
        (thread,) = threads
        assert thread.is_alive()
        assert thread.daemon
    finally:
        well.set()
    # Its loop is gone by now: what it found is dropped.
    thread.join()
