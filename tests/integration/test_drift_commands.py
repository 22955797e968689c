"""`driftgate drift ...` and references on a real broker: made, used, and refused where not fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from analyzer.model import locate_model
from driftgate.errors import Exit
from driftgate.reading import read_all
from schemas.drift import DriftFeature, DriftReading
from schemas.drift_reference import ReferenceFile, load_reference, with_id
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.hub import Hub, hub
from tests.support.monitoring import QUICK
from tests.support.processes import Driftgate, Launch, eventually
from tests.support.references import TEXTS, reference_file
from tests.support.topics import measured, prompt, publish_state, submit
from tests.support.workers import rolling, until

MODEL_S = 120.0
"""Until the model is loaded, on a busy machine."""


def prompts_file(folder: Path, texts: Sequence[str | None] = TEXTS) -> Path:
    """Prompts as `driftgate produce` takes them."""
    path = folder / "usual.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), "utf-8")
    return path


def written(folder: Path, file: ReferenceFile) -> Path:
    """A reference as a file."""
    path = folder / "other.json"
    path.write_bytes(msgspec.json.encode(file))
    return path


def watching(folder: Path) -> Path:
    """A policy whose rollout says soon how detectors stand, and does nothing else."""
    policy = msgspec.structs.replace(
        QUICK, drift=msgspec.structs.replace(QUICK.drift, enabled=True)
    )
    path = folder / "policy.yaml"
    path.write_bytes(msgspec.yaml.encode(policy))
    return path


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as found:
        yield found


def test_a_reference_is_made_shown_and_measured_with(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """From prompts to a file, to analyzers and a rollout, to readings against it (M3, M20)."""
    # Nothing of the last one is ever measured, so it is not what prompts are like.
    file = prompts_file(tmp_path, [*TEXTS, "   "])
    made = launch("drift", "calibrate", str(file), "--out", "reference.json", kafka=kafka)
    assert made.wait(MODEL_S) == Exit.OK, made.log
    assert "left out: 1 prompts that an analyzer would refuse" in made.log
    assert "set DRIFTGATE_DRIFT_REFERENCE=reference.json" in made.log
    path = tmp_path / "reference.json"
    reference = load_reference(path).reference
    assert (reference.rows, reference.source, reference.dimension) == (300, "usual.jsonl", 384)
    assert reference.model.startswith(locate_model().sha256 or "-")

    shown = launch("drift", "show", str(path), "--json", kafka=kafka)
    assert shown.wait() == Exit.OK, shown.log
    said = json.loads(shown.log)
    assert (said["id"], said["rows"]) == (reference.id, 300)
    assert {each["feature"] for each in said["thresholds"]} == {
        *(each.feature for each in reference.features),
        DriftFeature.EMBEDDINGS,
    }
    shown = launch("drift", "show", str(path), kafka=kafka)
    assert shown.wait() == Exit.OK
    assert f"reference {reference.id}: 300 prompts of usual.jsonl" in shown.log

    unknown = launch("drift", "status", kafka=kafka)
    assert unknown.wait() == Exit.FAILED
    assert "is a monitor running, and an analyzer?" in unknown.log

    variables = {"DRIFTGATE_DRIFT_REFERENCE": str(path)}
    launch("monitor", kafka=kafka)
    worker = launch("analyzer", kafka=kafka, **variables)
    worker.wait_for_log("model ready", within_s=MODEL_S)
    policy = str(watching(tmp_path))
    started = launch("rollout", "start", "--policy", policy, "--json", kafka=kafka, **variables)
    assert started.wait() == Exit.OK, started.log
    readings = asyncio.run(_readings_of(kafka, launch))
    learned = {DriftFeature.LATENCY, DriftFeature.ERROR, DriftFeature.FALLBACK}
    assert {r.feature for r in readings} == set(DriftFeature)
    assert {r.feature for r in readings if r.learned} == learned
    assert not any(r.drifting or r.foreign_rows for r in readings)
    batches = asyncio.run(measured(kafka)).batches
    assert {
        sums.reference
        for batch in batches
        for sums in (batch.control_embeddings, batch.candidate_embeddings)
        if sums
    } == {reference.id}
    table = launch("drift", "status", kafka=kafka)
    assert table.wait() == Exit.OK
    assert "default: no drift" in table.log
    assert worker.stop() == 0


async def _readings_of(kafka: KafkaSettings, launch: Launch) -> list[DriftReading]:
    """Prompts like the usual ones, until embeddings have a statistic."""

    async def found() -> list[DriftReading]:
        await submit(kafka, [prompt(text) for text in TEXTS[::3]])
        asked = launch("drift", "status", "--json", kafka=kafka)
        code = await asyncio.to_thread(asked.wait)
        if code != Exit.OK:
            return []
        lines = [line for line in asked.log.splitlines() if line.startswith("{")]
        readings = [msgspec.json.decode(line, type=DriftReading) for line in lines]
        ready = {r.feature for r in readings if r.statistic is not None}
        wanted = {DriftFeature.EMBEDDINGS, DriftFeature.CENTROID_DISTANCE}
        return readings if wanted <= ready else []

    readings: list[DriftReading] = await until("detectors have seen enough", found)
    return readings


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (TEXTS[:150], "usual.jsonl: 150 rows, and a reference needs 200"),
        (TEXTS[:1] * 200, "its prompts are all the same"),
        ([*TEXTS[:199], None], "usual.jsonl:200: "),
    ],
    ids=["few", "same", "bad row"],
)
def test_prompts_that_make_no_reference_are_refused(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path, texts: Sequence[str | None], words: str
) -> None:
    """With the file and the reason; nothing is written."""
    file = prompts_file(tmp_path, texts)
    made = launch("drift", "calibrate", str(file), kafka=kafka)
    assert made.wait(MODEL_S) == Exit.FAILED
    assert words in made.log
    assert not (tmp_path / "reference.json").exists()


def refused_with(process: Driftgate) -> str:
    """What a process says that ends for its settings."""
    assert process.wait() == Exit.SETTINGS, process.log
    assert "Traceback" not in process.log
    return process.log


def test_a_reference_of_another_model_starts_nothing(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Neither an analyzer nor a rollout; damaged files and other dimensions likewise (M3)."""
    file = reference_file()
    other = written(tmp_path, file)
    starts: list[tuple[str, ...]] = [("analyzer",), ("rollout", "start"), ("rollout", "preflight")]
    policy = str(watching(tmp_path))

    def all_say(*words: str) -> None:
        for command in starts:
            options = ("--policy", policy) if command[0] == "rollout" else ()
            variables = {"DRIFTGATE_DRIFT_REFERENCE": str(other)}
            said = refused_with(launch(*command, *options, kafka=kafka, **variables))
            assert all(word in said for word in (*words, "driftgate drift calibrate")), said

    all_say("DRIFTGATE_DRIFT_REFERENCE", "made with model hashing:384:v1", file.reference.id)
    one = np.eye(1, 192, dtype="<f4").tobytes()
    half = msgspec.structs.replace(file.reference, dimension=192, model=locate_model().sha256)
    written(tmp_path, with_id(msgspec.structs.replace(file, reference=half, centroids=one)))
    all_say("has 192 dimensions, models here have 384")
    other.write_bytes(msgspec.json.encode(file)[:-10])
    all_say("is no drift reference")
    assert asyncio.run(read_all(kafka, Topic.COMMANDS, committed_only=False)) == []
    assert "is no drift reference" in refused_with(launch("drift", "show", str(other), kafka=kafka))


def test_a_model_that_turns_out_to_be_another_measures_without_the_reference(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path, served: Hub
) -> None:
    """Known only once it is fetched: the worker serves, says so, and measures with its own map.

    A wrong reference costs nobody the semantic half.
    """
    folder = Path(locate_model().location)
    served.models["someone/some-model"] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    asyncio.run(publish_state(kafka, rolling()))
    worker = launch(
        "analyzer",
        kafka=kafka,
        DRIFTGATE_DRIFT_REFERENCE=str(written(tmp_path, reference_file())),
        DRIFTGATE_MODEL="someone/some-model",
        HF_ENDPOINT=served.url,
        HF_HOME=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    worker.wait_for_log("measuring without a drift reference", within_s=MODEL_S)
    worker.wait_for_log("model ready", within_s=MODEL_S)
    assert "was made with model hashing:384:v1" in worker.log
    assert "driftgate drift calibrate" in worker.log
    asyncio.run(submit(kafka, [prompt(text) for text in TEXTS[:20]]))

    def maps() -> set[str]:
        batches = asyncio.run(measured(kafka)).batches
        return {b.candidate_embeddings.reference for b in batches if b.candidate_embeddings}

    [own] = eventually("it measures", maps)
    assert own != reference_file().reference.id
    assert worker.stop() == 0
