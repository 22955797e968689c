"""The AsyncAPI document: valid by the official schema, and true to the topic table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from schemas.asyncapi import Role, asyncapi_document
from schemas.catalogue import events_of
from schemas.generate import render
from schemas.log import COLUMNS, RowFlag
from schemas.topics import TOPICS, Topic
from tests.support.contract import pointed_at, references

OFFICIAL = Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.json"


def test_the_asyncapi_document_is_valid() -> None:
    """It passes the official schema of AsyncAPI 3.0.0, Kafka bindings included."""
    official = Draft7Validator(json.loads(OFFICIAL.read_text(encoding="utf-8")))
    document = asyncapi_document()
    assert [error.message for error in official.iter_errors(document)] == []

    document["channels"]["prompts"]["bindings"]["kafka"]["partitions"] = 0
    assert not official.is_valid(document), "the official schema looks into the Kafka bindings"


def test_every_reference_of_the_document_leads_somewhere() -> None:
    """References into the document and into the files beside it resolve."""
    document = asyncapi_document()
    files = render()
    for ref in references(document):
        file, _, pointer = ref.partition("#")
        if file:
            assert file.removeprefix("./") in files, ref
        else:
            pointed_at(document, f"#{pointer}")


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.topic.value)
def test_a_channel_is_the_topic(spec: Any) -> None:
    """A channel's name, clean-up, retention and largest message are those of the topic."""
    document = asyncapi_document()
    channel = document["channels"][spec.topic.value]
    kafka = channel["bindings"]["kafka"]
    config = spec.config()
    assert channel["address"] == kafka["topic"] == spec.topic.value
    assert kafka["topicConfiguration"]["cleanup.policy"] == config["cleanup.policy"].split(",")
    assert kafka["topicConfiguration"].get("retention.ms") == (
        int(config["retention.ms"]) if "retention.ms" in config else None
    )
    assert kafka["topicConfiguration"]["max.message.bytes"] == spec.max_message_bytes
    for name in channel["messages"]:
        key = document["components"]["messages"][name]["bindings"]["kafka"]["key"]
        assert key == {"type": "string", "description": spec.key}


def test_each_message_of_a_channel_is_sent_and_received_by_some_role() -> None:
    """No message is without a sender or a receiver, and no operation has a message of elsewhere."""
    document = asyncapi_document()
    covered: dict[str, set[str]] = {"send": set(), "receive": set()}
    roles = set()
    for name, operation in document["operations"].items():
        role, action, _ = name.split(".", 2)
        assert operation["action"] == action
        assert operation["tags"] == [{"name": role}]
        roles.add(role)
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/")
            covered[action].add(message["$ref"])
    everything = {
        f"#/channels/{topic}/messages/{message}"
        for topic, channel in document["channels"].items()
        for message in channel["messages"]
    }
    assert covered == {"send": everything, "receive": everything}
    assert roles == set(Role)


def test_the_log_is_described_by_its_columns() -> None:
    """Log messages are msgpack, and the batch's description lists each column and each flag."""
    messages = asyncapi_document()["components"]["messages"]
    for event in events_of(Topic.LOG):
        assert messages[event.title]["contentType"] == "application/msgpack"
    description = messages["MeasurementBatch"]["description"]
    for name, dtype in COLUMNS.items():
        assert f"| `{name}` | {dtype.name} | {dtype.itemsize} |" in description
    for flag in RowFlag:
        assert f"| {flag.value} | `{flag.name}` |" in description
