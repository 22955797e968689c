"""docker-compose.yml and Dockerfile, checked as far as they can be without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from driftgate.broker.settings import COMMON
from driftgate.cli import app
from driftgate.settings import ENVIRONMENT

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")

# What a client library reads by itself, and so is not in the project's own table.
FOREIGN_VARIABLES = {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"}


def dockerfile_instructions() -> list[tuple[str, list[str]]]:
    """Each instruction of the Dockerfile with its words, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    words = [line.split() for line in joined.splitlines() if line.strip()]
    return [(first.upper(), rest) for first, *rest in words]


def command_of(service: dict[str, Any]) -> list[str]:
    """A service's command as a list of arguments."""
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else list(command)


def test_compose_file_follows_the_compose_specification() -> None:
    """The compose file is valid by the published schema."""
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text("utf-8"))
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_compose_schema_refuses_a_misspelt_key() -> None:
    """The copy of the schema is strict enough to find a typing error in a service."""
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text("utf-8"))
    wrong = {"services": {"kafka": {"image": "apache/kafka:4.3.1", "portz": ["9092"]}}}
    with pytest.raises(jsonschema.ValidationError, match="portz"):
        jsonschema.Draft7Validator(schema).validate(wrong)


def test_all_roles_are_there() -> None:
    """Kafka, MLflow, two analyzers, a monitor and a curator are described, ours from one image."""
    assert set(SERVICES) >= {"kafka", "mlflow", "analyzer", "monitor", "curator"}
    assert SERVICES["analyzer"]["deploy"]["replicas"] >= 2
    assert {SERVICES[name]["image"] for name in OURS} == {"driftgate:local"}
    assert set(OURS) == {"mlflow", "analyzer", "monitor", "tracker", "curator", "console"}


@pytest.mark.parametrize("name", [name for name in OURS if name != "mlflow"])
def test_command_exists(name: str) -> None:
    """A role's command, with every option that is given, is one that the command line knows."""
    program, *arguments = command_of(SERVICES[name])
    assert program == "driftgate"
    command: Any = typer.main.get_command(app)
    context = command.make_context("driftgate", list(arguments), resilient_parsing=True)
    role, subcommand, rest = command.resolve_command(context, arguments)
    assert role == name
    known = {option for parameter in subcommand.params for option in parameter.opts}
    given = {argument.partition("=")[0] for argument in rest if argument.startswith("-")}
    assert given <= known


def test_mlflow_command_exists() -> None:
    """The server's options are all known to the locked MLflow."""
    program, role, *options = command_of(SERVICES["mlflow"])
    assert (program, role) == ("mlflow", "server")
    told = subprocess.run(
        [sys.executable, "-m", "mlflow", "server", "--help"],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert {option.partition("=")[0] for option in options} <= set(
        re.findall(r"--[a-z-]+", told.stdout)
    )


@pytest.mark.parametrize("name", OURS)
def test_variables_exist(name: str) -> None:
    """Each variable that our services are given is one that something reads."""
    given = set(SERVICES[name].get("environment", {}))
    assert given <= set(ENVIRONMENT) | FOREIGN_VARIABLES


def test_roles_reach_the_broker_by_the_listener_for_containers() -> None:
    """The bootstrap address is the one that Kafka advertises to other containers."""
    advertised = dict(
        listener.split("://")
        for listener in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    for name in ("analyzer", "monitor", "curator"):
        servers = SERVICES[name]["environment"]["DRIFTGATE_BOOTSTRAP_SERVERS"]
        assert servers == advertised["INTERNAL"]


def test_host_reaches_the_broker_by_the_published_port() -> None:
    """The address that Kafka advertises to the host is the one that is published there."""
    environment = SERVICES["kafka"]["environment"]
    assert "HOST://127.0.0.1:9092" in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert "HOST://:9092" in environment["KAFKA_LISTENERS"].split(",")
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:9092"]


def test_kafka_listeners_agree() -> None:
    """Each listener has a protocol, and the broker's and the controller's are among them."""
    environment = SERVICES["kafka"]["environment"]
    listeners = {entry.split("://")[0] for entry in environment["KAFKA_LISTENERS"].split(",")}
    protocols = environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    assert listeners == {entry.split(":")[0] for entry in protocols}
    controller = environment["KAFKA_CONTROLLER_LISTENER_NAMES"]
    assert {environment["KAFKA_INTER_BROKER_LISTENER_NAME"], controller} <= listeners


def test_kafka_settings_are_those_of_the_embedded_broker() -> None:
    """What a test has shown on the embedded broker holds in the container: same settings."""
    environment = SERVICES["kafka"]["environment"]
    in_container = {
        key: str(environment.get(f"KAFKA_{key.upper().replace('.', '_')}")) for key in COMMON
    }
    assert in_container == dict(COMMON)


def test_mlflow_is_reachable_under_its_name() -> None:
    """The tracking address is the server's own, by a Host header that the server accepts."""
    uri = SERVICES["tracker"]["environment"]["DRIFTGATE_MLFLOW_URI"]
    command = command_of(SERVICES["mlflow"])
    hosts = next(part for part in command if part.startswith("--allowed-hosts="))
    assert uri.removeprefix("http://") in hosts.partition("=")[2].split(",")
    assert f"--port={uri.rpartition(':')[2]}" in command


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """Nothing of an installation without passwords can be reached from another machine."""
    for port in SERVICES[name].get("ports", []):
        assert isinstance(port, str), "the short form: 127.0.0.1:HOST:CONTAINER"
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    """Each image has a tag that does not move, or is built here."""
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    if name in OURS:
        assert tag == "local"
    else:
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag)


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights(name: str) -> None:
    """Our services keep the image's user, and can gain no rights."""
    service = SERVICES[name]
    assert service.get("user", "10001") not in ("0", "root")
    assert not service.get("privileged", False)
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_image_runs_as_a_user_without_rights() -> None:
    """The last stage of the Dockerfile ends as a user who is not root."""
    instructions = dockerfile_instructions()
    last_stage = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    users = [words[0] for name, words in instructions[last_stage:] if name == "USER"]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) > 0


def test_base_images_are_pinned() -> None:
    """Each stage starts from an image with a version, on the oldest Python that is supported."""
    bases = {words[0] for name, words in dockerfile_instructions() if name == "FROM"}
    assert bases == {"python:3.11-slim"}


def test_copied_files_exist_and_reach_the_builder() -> None:
    """What the Dockerfile copies is in the tree, and let through by .dockerignore."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*", "an allow-list: what is not named stays out of the image"
    let_through = {line[1:] for line in rules if line.startswith("!")}
    copied = set()
    for name, words in dockerfile_instructions():
        if name == "COPY" and not any(word.startswith("--from=") for word in words):
            copied.update(words[:-1])
    missing = sorted(source for source in copied if not (ROOT / source).exists())
    assert not missing
    assert copied == let_through


def test_image_has_every_package() -> None:
    """All four packages go into the image."""
    copied = {word for name, words in dockerfile_instructions() if name == "COPY" for word in words}
    assert {"schemas", "analyzer", "streams", "driftgate"} <= copied


def test_named_volumes_are_declared_and_used() -> None:
    """A volume that is mounted is declared, and the other way round; a folder is there."""
    mounted = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    folders = {name for name in mounted if name.startswith("./")}
    assert mounted - folders == set(COMPOSE["volumes"])
    assert all((ROOT / folder).is_dir() for folder in folders)
