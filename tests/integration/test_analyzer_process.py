"""Real `driftgate analyzer` processes with the real model: started, stopped, killed, frozen."""

from __future__ import annotations

import asyncio

from schemas.settings import KafkaSettings
from tests.support.processes import Launch
from tests.support.topics import heartbeats, prompt, submit, wait_for_outcome


def test_terminated_worker_leaves_in_order(kafka: KafkaSettings, launch: Launch) -> None:
    """SIGTERM lets the batch finish; the last heartbeat says leaving, and the exit code is 0."""
    sent = asyncio.run(submit(kafka, [prompt(f"Explain topic {n} to a child") for n in range(40)]))
    worker = launch("analyzer", kafka=kafka)
    found = asyncio.run(wait_for_outcome(kafka, len(sent)))
    assert worker.stop() == 0
    assert found.positions == sorted(sent)
    *before, last = asyncio.run(heartbeats(kafka))
    assert last.leaving
    assert not any(one.leaving for one in before)
