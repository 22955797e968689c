"""The curator: sessions with Kafka, one after the other, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from aiokafka.errors import KafkaError

from analyzer.curator_session import CuratorSession
from analyzer.curator_settings import CuratorSettings
from analyzer.curator_telemetry import CuratorTelemetry

__all__ = ["Curator"]

log = logging.getLogger("driftgate.curator")

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses after sessions that failed in a row; the last one repeats."""
STEADY_SECONDS = 30.0
"""A session that lasted for so long begins the pauses anew."""
DRAIN_SECONDS = 5.0
"""What a stop allows for the turn under way. One that is not done by then, because the broker is
away, is done again by the next start."""


class Curator:
    """One curator process.

    Args:
        settings: built once.
    """

    def __init__(self, settings: CuratorSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self.telemetry = CuratorTelemetry()

    def stop(self) -> None:
        """Finish the turn under way, leave the group, and return from :meth:`run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; a broker that goes away is waited for."""
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({work}, timeout=DRAIN_SECONDS)
            if not work.done():
                log.warning("the turn under way cannot be finished; the next start does it again")
        finally:
            stop.cancel()
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()
        log.info("curator %s stopped", self._settings.curator_id)

    async def _work(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self.telemetry.turns += 1
            began_s = time.monotonic()
            session = CuratorSession(self._settings, self.telemetry, self._stopping)
            try:
                await session.run()
            except (KafkaError, TimeoutError) as error:
                if time.monotonic() - began_s > STEADY_SECONDS:
                    failures = 0
                pause_s = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                self.telemetry.failures += 1
                log.warning("what was not delivered will be read again in %g s: %r", pause_s, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stopping.wait()
