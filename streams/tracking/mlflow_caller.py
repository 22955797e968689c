"""Calls MLflow in a thread, and again while it is away.

What MLflow does not take is told from a MLflow that takes nothing: after a call has failed for a
while, something that was taken before is written again. Only if that succeeds is the call given up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from streams.errors import (
    SinkMissingError,
    SinkRefusedError,
    SinkUnavailableError,
    StreamsError,
)
from streams.tracking.telemetry import TrackerTelemetry

__all__ = ["RETRY_SECONDS", "Caller", "StoppedError"]

log = logging.getLogger("driftgate.tracker")
T = TypeVar("T")

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses after calls that failed in a row; the last one repeats."""
SUSPECT_AFTER = 5
"""Failures in a row, 9 s of pauses, after which a call may be what MLflow never takes."""


class StoppedError(StreamsError):
    """The tracker is to end, and MLflow has not taken what was given to it."""


class Caller:
    """Makes calls, one at a time.

    Args:
        probe: a call that succeeds where MLflow takes anything.
        telemetry: is told of failures.
        stopping: set to end.
        retry_seconds: pauses.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        telemetry: TrackerTelemetry,
        stopping: asyncio.Event,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self.probe = probe
        self._telemetry = telemetry
        self._stopping = stopping
        self._retry_seconds = retry_seconds
        self._one = asyncio.Lock()
        self._failures = 0
        """In a row."""

    async def call(self, what: str, function: Callable[[], T]) -> T:
        """The result of a call, however long it takes.

        Raises:
            SinkRefusedError: MLflow does not take this, but takes other things.
            StoppedError: it was to end before.
        """
        attempts = 0
        while True:
            try:
                result, _ = await self.once(function)
            except SinkMissingError:
                raise
            except SinkRefusedError as error:
                if await self._takes_others():
                    raise
                await self.wait(what, error)
            except SinkUnavailableError as error:
                attempts += 1
                if attempts >= SUSPECT_AFTER and await self._takes_others():
                    raise SinkRefusedError(
                        f"failed {attempts} times while other things succeeded: {error}"
                    ) from error
                await self.wait(what, error)
            else:
                return result

    async def once(self, function: Callable[[], T]) -> tuple[T, float]:
        """The result of a call that is made once, and the seconds that it took."""
        async with self._one:
            self._telemetry.turns += 1
            began = time.monotonic()
            result = await _in_thread(function)
            self._telemetry.available = True
            self._failures = 0
            return result, time.monotonic() - began

    async def wait(self, what: str, error: StreamsError) -> None:
        """Say that a call failed, and pause.

        Raises:
            StoppedError: it is to end.
        """
        pause_s = self._retry_seconds[min(self._failures, len(self._retry_seconds) - 1)]
        self._failures += 1
        self._telemetry.failures += 1
        self._telemetry.available = False
        log.warning("MLflow did not take %s; again in %g s: %s", what, pause_s, error)
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise StoppedError(f"{what} was not written")

    async def _takes_others(self) -> bool:
        try:
            await self.once(self.probe)
        except (SinkUnavailableError, SinkRefusedError):
            return False
        return True


async def _in_thread(function: Callable[[], T]) -> T:
    """The result of a call, made in a thread that nobody waits for at the end.

    An executor of the standard library would be: a server that hangs would keep the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T, where there is no error

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001 - handed to whoever waits
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="mlflow", daemon=True).start()
    return await future
