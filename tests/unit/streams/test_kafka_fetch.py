from __future__ import annotations

import asyncio
from pathlib import Path

from schemas.policy import default_policy
from schemas.settings import KafkaSettings
from streams.app import create_app
from streams.kafka_fetch import FETCH_MAX_BYTES, FETCH_MAX_WAIT_MS
from streams.settings import MonitorSettings
from streams.telemetry import Telemetry


def test_the_monitor_fetches_with_its_own_bounds(tmp_path: Path) -> None:
    """The consumer that Faust makes waits shortly and brings much: a backlog is not held up."""
    settings = MonitorSettings(
        kafka=KafkaSettings(),
        monitor_id="monitor-1",
        policy=default_policy(),
        data_dir=str(tmp_path),
    )
    app = create_app(settings, Telemetry())

    async def bounds() -> tuple[int, int]:
        thread = app.consumer._new_consumer_thread()
        consumer = thread._create_consumer(app.consumer.loop)
        await consumer.stop()
        return consumer._fetch_max_wait_ms, consumer._max_partition_fetch_bytes

    assert asyncio.run(bounds()) == (FETCH_MAX_WAIT_MS, FETCH_MAX_BYTES)
