"""`driftgate curator`: the process that counts feedback and picks problem cases."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from driftgate.commands.options import Bootstrap
from driftgate.logs import configure_logging
from driftgate.settings import curator_settings, http_address, kafka_settings
from driftgate.topics import ensure_topics
from driftgate.waiting import wait_for_broker

if TYPE_CHECKING:
    from analyzer.curator import Curator

__all__ = ["curator"]

STILL_SECONDS = 60.0
"""How long its loop may stand still: longer than a turn takes while the broker is away."""


def curator(bootstrap: Bootstrap = None) -> None:
    """Run a curator: feedback into the log, problem cases to prompts.curated; of all services."""
    from analyzer.curator import Curator

    configure_logging(os.environ)
    settings = curator_settings(os.environ, kafka_settings(os.environ, bootstrap))
    wait_for_broker(settings.kafka.bootstrap_servers)

    async def run() -> None:
        await ensure_topics(settings.kafka)
        process = Curator(settings)
        _serve(process)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, process.stop)
        await process.run()

    asyncio.run(run())


def _serve(process: Curator) -> None:
    address = http_address(os.environ)
    if address is None:
        return
    from driftgate.prometheus import CuratorCollector, Probes, Progress, serve

    seen = process.telemetry
    probes = Probes(
        alive=Progress(lambda: seen.turns, "turn of its loop", STILL_SECONDS),
        ready=lambda: None if seen.ready else "it has no partitions, or is reading back",
    )
    serve("curator", address, probes, CuratorCollector(seen))
