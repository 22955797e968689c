"""The generated files: up to date, valid JSON Schema, and of one mind with our decoders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from schemas.catalogue import Event, catalogue
from schemas.cloudevents import EVENT_TYPES
from schemas.control import ControlEvent, GateBreached
from schemas.errors import SchemaError
from schemas.generate import main, out_of_date, render, schema_for, write
from schemas.log import LogRecord
from schemas.policy import Policy, default_policy
from schemas.prompts import PromptSubmitted
from tests.support.contract import errors_of, pointed_at, references
from tests.support.samples import sample

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "schemas"

EVENTS = catalogue()
every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)


# --- the files ---------------------------------------------------------------------------------


def test_the_files_are_up_to_date() -> None:
    """What is checked in is what the contract generates."""
    assert out_of_date(PACKAGE) == [], "run `python -m schemas.generate` and commit what it writes"


def test_check_names_every_file_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed, a missing and a left-over file are named, and the exit code is 1."""
    write(tmp_path)
    assert main(["--check"], tmp_path) == 0
    capsys.readouterr()
    folder = tmp_path / "generated"
    (folder / "prompt-enriched.v1.schema.json").write_text("{}", encoding="utf-8")
    (folder / "tick.v1.schema.json").unlink()
    (folder / "gone.v1.schema.json").write_text("{}", encoding="utf-8")

    assert main(["--check"], tmp_path) == 1

    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "generated/prompt-enriched.v1.schema.json (out of date)",
        "generated/tick.v1.schema.json (missing)",
        "generated/gone.v1.schema.json (not of any event)",
    ]
    assert "python -m schemas.generate" in printed.err
    assert (folder / "gone.v1.schema.json").exists(), "a check writes nothing"
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0


def test_the_output_is_the_same_in_every_process() -> None:
    """Neither the hash seed nor the order of imports is seen in the files."""
    script = (
        "import hashlib, schemas.generate as g;"
        "print(hashlib.sha256(repr(g.render()).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_names_that_others_rely_on_stay() -> None:
    """A file name or CloudEvents type of version 1 is never renamed, only added to."""
    published = {
        "prompt-submitted.v1.schema.json": None,
        "prompt-enriched.v1.schema.json": "driftgate.prompt.enriched.v1",
        "prompt-rejected.v1.schema.json": "driftgate.prompt.rejected.v1",
        "operator-command.v1.schema.json": "driftgate.operator.command.v1",
        "window-metrics.v1.schema.json": "driftgate.window.metrics.v1",
        "rollout-state.v1.schema.json": "driftgate.rollout.state.v1",
        "alert.v1.schema.json": "driftgate.alert.v1",
        "gate-breached.v1.schema.json": "driftgate.gate.breached.v1",
        "gate-recovered.v1.schema.json": "driftgate.gate.recovered.v1",
        "rollout-started.v1.schema.json": "driftgate.rollout.started.v1",
        "rollout-advanced.v1.schema.json": "driftgate.rollout.advanced.v1",
        "rollout-paused.v1.schema.json": "driftgate.rollout.paused.v1",
        "rollout-resumed.v1.schema.json": "driftgate.rollout.resumed.v1",
        "rollout-promoted.v1.schema.json": "driftgate.rollout.promoted.v1",
        "rollout-rolled-back.v1.schema.json": "driftgate.rollout.rolled_back.v1",
        "rollback-confirmed.v1.schema.json": "driftgate.rollback.confirmed.v1",
        "command-rejected.v1.schema.json": "driftgate.command.rejected.v1",
        "measurement-batch.v1.schema.json": None,
        "heartbeat.v1.schema.json": None,
        "command-record.v1.schema.json": None,
        "tick.v1.schema.json": None,
    }
    assert published.items() <= {event.file: event.ce_type for event in EVENTS}.items()


def test_the_tables_are_found_whole() -> None:
    """Every struct with a CloudEvents type, every control event and every log record is there."""
    found = {event.type for event in EVENTS}
    assert found >= {*EVENT_TYPES, *get_args(ControlEvent), *get_args(LogRecord), PromptSubmitted}
    assert {f"generated/{event.file}" for event in EVENTS} <= set(render())


# --- JSON Schema -------------------------------------------------------------------------------


@every_event
def test_a_schema_is_valid_and_has_no_host(event: Event) -> None:
    """Each file is JSON Schema 2020-12, stands alone, and its id is a URN of its own."""
    schema = json.loads(render()[f"generated/{event.file}"])
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    stem, version, *_ = event.file.split(".")
    assert schema["$id"] == f"urn:driftgate:{stem}:{version}"
    assert schema["title"] == event.title
    for ref in references(schema):
        assert ref.startswith("#/"), ref
        pointed_at(schema, ref)


@every_event
def test_a_sample_of_every_event_keeps_its_schema(event: Event) -> None:
    """An event with all fields set is valid, and survives the way through JSON."""
    original = sample(event.type)
    value = msgspec.json.encode(original)
    assert errors_of(event.type, json.loads(value)) == []
    assert msgspec.json.decode(value, type=event.type) == original


@every_event
def test_schema_and_decoder_agree(event: Event) -> None:
    """What the decoder takes the schema takes, and what one refuses the other refuses."""
    good = json.loads(msgspec.json.encode(sample(event.type)))
    disagreements = []
    refused = 0
    for path, wrong in wrong_versions(good):
        accepted = decodes(event.type, wrong)
        refused += not accepted
        if accepted != (errors_of(event.type, wrong) == []):
            disagreements.append((path, "accepted" if accepted else "refused"))
    assert disagreements == []
    assert refused, "the wrong versions are wrong"


def test_the_default_policy_keeps_the_schema_of_policies() -> None:
    """The file that editors check a policy by takes the policy that ships."""
    schema = json.loads(render()["generated/gate-policy.v1.schema.json"])
    assert schema == schema_for(Policy)
    Draft202012Validator.check_schema(schema)
    assert errors_of(Policy, msgspec.to_builtins(default_policy())) == []
    assert errors_of(Policy, {"blue": "x"}) != []


def test_schema_for_takes_a_type_and_its_names() -> None:
    """The struct, its name, its versioned name and its CloudEvents type mean the same."""
    schema = schema_for(GateBreached)
    assert schema["properties"]["type"] == {"enum": ["gate.breached"]}
    for name in ("GateBreached", "gate.breached.v1", "driftgate.gate.breached.v1"):
        assert schema_for(name) == schema
    with pytest.raises(
        SchemaError, match=r"'driftgate\.nothing\.v1'; there are: prompt\.submitted"
    ):
        schema_for("driftgate.nothing.v1")


# --- helpers -----------------------------------------------------------------------------------


# The texts are base64, too: that a text must be is an annotation in JSON Schema, not a rule.
WRONG = (None, True, -1, 0, 1.5, 10**6, 10**12, "", "xxxx", "x" * 5000, [], {}, [1], {"x": []})


def wrong_versions(value: Any, path: str = "$") -> list[tuple[str, Any]]:
    """The value with one place of it left out or exchanged for something else, for all places."""
    found: list[tuple[str, Any]] = [(f"{path} = {wrong!r:.20}", wrong) for wrong in WRONG]
    if isinstance(value, dict):
        for key, child in value.items():
            rest = {k: v for k, v in value.items() if k != key}
            found.append((f"{path}.{key} left out", rest))
            found += [(p, {**value, key: w}) for p, w in wrong_versions(child, f"{path}.{key}")]
        found.append((f"{path}.added", {**value, "added": 1}))
    if isinstance(value, list):
        found += [(p, [w]) for p, w in wrong_versions(value[0], f"{path}[0]")]
    return found


def decodes(event_type: type, value: Any) -> bool:
    """Whether the decoder that our processes use takes a JSON value."""
    unions = (ControlEvent, LogRecord)
    union = next((union for union in unions if event_type in get_args(union)), event_type)
    try:
        msgspec.json.decode(json.dumps(value), type=union)
    except msgspec.ValidationError:
        return False
    return True
