"""`driftgate replay` and `rollout explain` on a real log, against what a real monitor said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from driftgate.errors import Exit
from driftgate.reading import read_all
from schemas import cloudevents
from schemas.control import ControlEvent, RolloutRolledBack
from schemas.log import Command
from schemas.rollout import Phase
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.monitoring import QUICK, Traffic, as_undisturbed, ask, until_confirmed
from tests.support.processes import Launch
from tests.support.topics import put

DEADLINE_S = 60.0


def run_to_end(launch: Launch, *arguments: str, kafka: KafkaSettings) -> tuple[int, str]:
    """Exit code and output of a command."""
    process = launch(*arguments, kafka=kafka)
    return process.wait(DEADLINE_S), process.log


def test_a_log_is_replayed_verified_and_explained(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """A rollback follows from its log to the byte; a forged decision and a milder policy do not."""
    monitor = launch("monitor", kafka=kafka)

    async def live() -> ControlEvent:
        async with Traffic(kafka, "shop").flowing() as traffic:
            await ask(kafka, Command.START, "shop")
            await traffic.until_stage(2)
            traffic.candidate = {"coherence": 0.4}
            await traffic.until_phase(Phase.ROLLED_BACK)
            await until_confirmed(kafka)
        await as_undisturbed(kafka)
        records = await read_all(kafka, Topic.CONTROL, committed_only=False)
        events = [cloudevents.decode_json(r.value, cloudevents.CONTROL_EVENT) for r in records]
        (rolled_back,) = [e for e in events if isinstance(e, RolloutRolledBack)]
        return rolled_back

    event = asyncio.run(live())
    assert monitor.stop() == 0

    code, text = run_to_end(launch, "replay", "--service", "shop", "--verify", kafka=kafka)
    assert code == 0, text
    assert "all 6 decisions of 'shop' follow from its log" in text.replace("\n", " ")

    code, text = run_to_end(
        launch, "replay", "--service", "shop", "--decision", event.id, "--json", kafka=kafka
    )
    assert code == 0, text
    (line,) = [each for each in text.splitlines() if each.startswith("{")]
    assert msgspec.json.decode(line, type=RolloutRolledBack) == event

    milder = tmp_path / "milder.yaml"
    gates = [msgspec.structs.replace(g, dry_run=True) for g in QUICK.gates]
    other = msgspec.structs.replace(QUICK, gates=gates)
    # Any JSON is YAML.
    milder.write_bytes(msgspec.json.encode(other))
    code, text = run_to_end(
        launch, "replay", "--service", "shop", "--policy", str(milder), "--json", kafka=kafka
    )
    assert code == 0, text
    kinds = [
        msgspec.json.decode(each)["type"] for each in text.splitlines() if each.startswith("{")
    ]
    assert "rollout.rolled_back" not in kinds
    assert "gate.breached" in kinds

    png = tmp_path / "why.png"
    code, text = run_to_end(
        launch,
        *("rollout", "explain", event.id, "--service", "shop", "--png", str(png)),
        kafka=kafka,
    )
    assert code == 0, text
    words = " ".join(text.split())
    for said in ("driftgate decided this by itself", "guardrail coherence", "is certified to be",
                 "where the limit is 0.7", "•"):  # fmt: skip
        assert said in words
    assert png.read_bytes().startswith(b"\x89PNG")

    forged = cloudevents.encode_json(msgspec.structs.replace(event, share=0.5))

    async def forge() -> None:
        await put(kafka, Topic.CONTROL, b"shop", forged)

    asyncio.run(forge())
    code, text = run_to_end(launch, "replay", "--service", "shop", "--verify", kafka=kafka)
    assert code == Exit.FAILED
    assert "does not follow from the log" in " ".join(text.split())


def test_what_is_not_in_the_log_is_said(kafka: KafkaSettings, launch: Launch) -> None:
    """An unknown service or decision is an error that says where to look."""
    code, text = run_to_end(launch, "replay", "--service", "nobody", kafka=kafka)
    assert code == Exit.FAILED
    assert "no record of service 'nobody'" in " ".join(text.split())
