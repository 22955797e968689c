"""Which analyzers are alive, by what stands in the log."""

from __future__ import annotations

import time

from driftgate.reading import TopicReader
from schemas.errors import DecodeError
from schemas.log import Heartbeat, decode_log_record
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["RECENT_MS", "live_workers"]

RECENT_MS = 15_000
"""A worker that was heard of within so long is alive."""
_TAIL = 2000
"""Records looked back on in each partition: minutes, even of a busy service."""


async def live_workers(kafka: KafkaSettings, service: str) -> dict[str, Heartbeat]:
    """The newest heartbeat of each worker of a service that has sent one lately, by name."""
    newest_ms = 0
    heard: dict[str, tuple[int, Heartbeat]] = {}
    async with TopicReader(kafka, Topic.LOG) as reader:
        async for record in reader.to_end(last=_TAIL):
            newest_ms = max(newest_ms, record.timestamp)
            try:
                beat = decode_log_record(record.value)
            except DecodeError:
                continue
            if isinstance(beat, Heartbeat) and beat.service == service:
                heard[beat.worker_id] = (record.timestamp, beat)
    # Against this machine's clock: the log's own stands still when everything is down.
    now_ms = max(time.time_ns() // 1_000_000, newest_ms)
    return {
        worker: beat
        for worker, (at_ms, beat) in sorted(heard.items())
        if now_ms - at_ms < RECENT_MS and not beat.leaving
    }
