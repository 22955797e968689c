"""One whole rollout by the command line: real model, real broker, a fault, the way back."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from schemas.control import GateBreached, RollbackConfirmed, RolloutRolledBack
from schemas.policy import Policy, Stage, Windows
from schemas.settings import KafkaSettings
from tests.support.folding import gate, policy
from tests.support.monitoring import as_undisturbed
from tests.support.processes import Launch, eventually
from tests.support.topics import measured, outcome

PROMPTS = 6000
"""More than are published before the end at the rate below: the producer is stopped."""
RATE = 40

POLICY: Policy = policy(
    gate("semantic-errors", min_samples=40),
    gate("system-errors", min_samples=40),
    gate("score-vs-control", min_samples=40),
    stages=[
        Stage(percent=0.0, shadow_percent=50.0, min_seconds=3.0),
        Stage(percent=25.0, min_seconds=3.0),
        Stage(percent=50.0, min_seconds=3600.0),
        Stage(percent=100.0, min_seconds=3600.0),
    ],
    windows=Windows(pane_seconds=1.0, hop_seconds=2.0, window_seconds=10.0),
    confirm_seconds=20.0,
)


def write_prompts(path: Path) -> None:
    """The sample that ships, again and again, by many users."""
    text = resources.files("driftgate").joinpath("demo_prompts.jsonl").read_text("utf-8")
    sample = [json.loads(line) for line in text.splitlines()]
    rows = [
        {**sample[n % len(sample)], "id": f"p-{n}", "user_id": f"u-{n}"} for n in range(PROMPTS)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def test_a_fault_is_caught_and_taken_back(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Start, shadow, 25, 50 %; the model breaks; all traffic is back on blue, as all workers say.

    Every prompt has one result and is measured once, and all that the monitor said follows from
    its log.
    """
    faults, rules, prompts = (tmp_path / name for name in ("faults", "policy.yaml", "p.jsonl"))
    rules.write_bytes(msgspec.yaml.encode(POLICY))
    write_prompts(prompts)
    monitor = launch("monitor", kafka=kafka)
    workers = [
        launch("analyzer", "--worker-id", f"w{n}", kafka=kafka, DRIFTGATE_FAULTS_FILE=str(faults))
        for n in (1, 2)
    ]
    for worker in workers:
        worker.wait_for_log("working on partitions")
    producer = launch("produce", str(prompts), "--rate", str(RATE), kafka=kafka)
    follower = launch("control", "--follow", "--json", kafka=kafka)
    started = launch("rollout", "start", "--policy", str(rules), "--json", kafka=kafka)
    assert started.wait() == 0, started.log

    def events(kind: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in follower.log.splitlines() if line[:1] == "{"]
        return [event for event in found if event["type"] == kind]

    eventually("the rollout is at 50 %", lambda: len(events("rollout.advanced")) == 2, 90)
    faults.write_text(json.dumps({"deployment": "semantic", "error_rate": 0.5}), encoding="utf-8")
    eventually("the rollback is confirmed", lambda: events("rollback.confirmed"), 90)
    assert producer.code is None, producer.log
    assert producer.stop() != 0

    breached, rolled_back, confirmed = (
        msgspec.convert(events(kind.__struct_config__.tag)[0], kind)
        for kind in (GateBreached, RolloutRolledBack, RollbackConfirmed)
    )
    assert breached.gate.gate == rolled_back.gate.gate == "semantic-errors"
    assert rolled_back.share == 0.0
    assert rolled_back.workers == confirmed.workers == ["w1", "w2"]
    assert breached.at_ms <= rolled_back.at_ms <= confirmed.at_ms

    status = launch("rollout", "status", "--json", kafka=kafka)
    assert status.wait() == 0, status.log
    assert json.loads(status.log)["rollout"]["phase"] == "rolled_back"

    for worker in workers:
        assert worker.stop() == 0
    results = asyncio.run(outcome(kafka))
    counted = asyncio.run(measured(kafka))
    assert len(results.positions) == len(set(results.positions)) > 200
    assert counted.positions == sorted((p.partition, p.offset) for p in results.positions)
    asyncio.run(as_undisturbed(kafka))
    assert monitor.stop() == 0
