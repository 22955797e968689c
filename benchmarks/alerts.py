"""How long an alert takes from its event on Kafka to whoever is told.

    python -m benchmarks.alerts --json

A real notifier process on a real broker, and a web server on this machine that stands for a chat or
a pager. An alert's time begins with the broker's time stamp of its event (the monitor publishes it
together with the control event that it is about), and ends when its request has been received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.machine import describe_machine
from driftgate.broker import EmbeddedKafka
from driftgate.processes import Role
from driftgate.settings import kafka_settings
from driftgate.topics import ensure_topics
from schemas import cloudevents
from schemas.control import AlertEvent, AlertSeverity, AlertStatus, LogPosition
from schemas.settings import KafkaSettings
from schemas.topics import Topic

READY_TIMEOUT_S = 30.0
PAUSE_S = 0.2
"""Between two alerts: each finds an idle notifier, as alerts do."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="From an alert's event to its delivery.")
    parser.add_argument("--alerts", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    asked = parser.parse_args()
    with EmbeddedKafka() as broker, tempfile.TemporaryDirectory() as folder:
        found = _measure(kafka_settings({}, broker.bootstrap_servers), asked.alerts, Path(folder))
    found["machine"] = describe_machine()
    sys.stdout.write(json.dumps(found, indent=None if asked.json else 2) + "\n")


def _measure(kafka: KafkaSettings, alerts: int, folder: Path) -> dict[str, Any]:
    asyncio.run(ensure_topics(kafka))
    with receiver() as (port, received):
        environ = {
            **os.environ,
            "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DRIFTGATE_NOTIFY_URLS": f"json://127.0.0.1:{port}/",
        }
        with Role("notifier", ["notifier"], environ, folder / "notifier.log") as notifier:
            _wait_until_ready(notifier)
            sent = asyncio.run(_publish(kafka, alerts))
            deadline = time.monotonic() + READY_TIMEOUT_S
            while len(received) < alerts and time.monotonic() < deadline:
                time.sleep(0.05)
    if len(received) < alerts:
        raise SystemExit(f"only {len(received)} of {alerts} alerts arrived")
    took = [received[number] - sent[number] for number in range(alerts)]
    return {
        "alerts": alerts,
        "delivered_p50_ms": round(statistics.median(took), 1),
        "delivered_p99_ms": round(statistics.quantiles(took, n=100)[-1], 1),
        "delivered_max_ms": round(max(took), 1),
    }


def _wait_until_ready(notifier: Role) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while "alerts go to" not in notifier.log_path.read_text("utf-8", "replace"):
        if time.monotonic() > deadline:
            raise SystemExit(notifier.ended() or "the notifier did not get ready")
        time.sleep(0.1)


async def _publish(kafka: KafkaSettings, alerts: int) -> dict[int, float]:
    """Publish them one by one; when each was appended, ms since the epoch."""
    appended = {}
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for number in range(alerts):
            await asyncio.sleep(PAUSE_S)
            event = _alert(number)
            done = await producer.send_and_wait(
                kafka.topic(Topic.ALERTS), key=b"bench", value=cloudevents.encode_json(event)
            )
            appended[number] = float(done.timestamp)
    finally:
        await producer.stop()
    return appended


def _alert(number: int) -> AlertEvent:
    now_ms = time.time_ns() // 1_000_000
    return AlertEvent(
        id=str(number),
        key=f"gate-breached/bench/{number}",
        rule="gate-breached",
        service="bench",
        status=AlertStatus.FIRING,
        severity=AlertSeverity.CRITICAL,
        summary="semantic_error rate <= 0.01: failed",
        cure="driftgate rollout explain",
        since_ms=now_ms,
        at_ms=now_ms,
        cause=LogPosition(0, number),
    )


@contextmanager
def receiver() -> Iterator[tuple[int, dict[int, float]]]:
    """A web server on a free port, and when it has received which alert, ms since the epoch."""
    received: dict[int, float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            at_ms = time.time_ns() / 1e6
            key = json.loads(body)["message"].rstrip().rsplit("\n", 1)[-1]
            received.setdefault(int(key.rsplit("/", 1)[-1]), at_ms)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
