"""`/metrics`, `/healthz` and `/readyz` of real processes on a real broker (M24, M60)."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request

from driftgate.errors import Exit
from schemas.settings import KafkaSettings
from tests.support.processes import Driftgate, Launch, eventually
from tests.support.topics import prompt, submit, wait_for_outcome


def port_of(process: Driftgate) -> int:
    process.wait_for_log("metrics on http://127.0.0.1:")
    found = re.search(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", process.log)
    assert found
    return int(found[1])


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_an_analyzer_and_a_monitor_are_watched(kafka: KafkaSettings, launch: Launch) -> None:
    """Both become ready, and count what went through them."""
    ports = {"DRIFTGATE_HTTP_PORT": "0"}
    analyzer = launch("analyzer", kafka=kafka, DRIFTGATE_MODEL="/nonexistent", **ports)
    monitor = launch("monitor", kafka=kafka, **ports)
    worker_port, monitor_port = port_of(analyzer), port_of(monitor)
    for port in (worker_port, monitor_port):
        eventually("it is ready", lambda port=port: get(port, "/readyz") == (200, "ok\n"))
        assert get(port, "/healthz") == (200, "ok\n")
    asyncio.run(submit(kafka, [prompt("Explain the moon", "1"), (b"2", b"no json")]))
    asyncio.run(wait_for_outcome(kafka, 2))

    def counted() -> bool:
        text = get(worker_port, "/metrics")[1]
        return (
            'driftgate_events_total{outcome="accepted"} 1.0' in text
            and 'driftgate_validation_rejected_total{reason="not_json"} 1.0' in text
        )

    eventually("the analyzer has counted both", counted)
    measured = 'driftgate_measured_prompts_total{service="default"} 2.0'
    eventually("the monitor has, too", lambda: measured in get(monitor_port, "/metrics")[1])


def test_a_port_that_is_taken_is_said(kafka: KafkaSettings, launch: Launch) -> None:
    """Two processes of a machine need a port each: the second one says so and ends."""
    first = launch("monitor", kafka=kafka, DRIFTGATE_HTTP_PORT="0")
    port = str(port_of(first))
    second = launch("monitor", "--monitor-id", "m2", kafka=kafka, DRIFTGATE_HTTP_PORT=port)
    assert second.wait() == Exit.SETTINGS
    assert "choose another with DRIFTGATE_HTTP_HOST and DRIFTGATE_HTTP_PORT" in second.log
