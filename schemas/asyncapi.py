"""The AsyncAPI 3 document of the contract: topics, messages, and who sends and receives what.

Source: AsyncAPI 3.0.0, Kafka bindings 0.5.0. Version 3.0.0 and not 3.1.0, because more tools read
it and nothing of 3.1.0 is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import IntFlag, StrEnum
from typing import Any

from schemas.catalogue import Event, catalogue, events_of, inbound
from schemas.errors import SchemaError
from schemas.feedback_batch import FEEDBACK_COLUMNS, FeedbackBatch, FeedbackFlag
from schemas.log import COLUMNS, MeasurementBatch, RowFlag
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic, TopicSpec

__all__ = ["ASYNCAPI_FILE", "SCHEMA_FOLDER", "Role", "asyncapi_document"]

ASYNCAPI_FILE = "asyncapi.json"
SCHEMA_FOLDER = "generated"

CONTRACT_VERSION = "1.0.0"
"""Of the contract, not of the code: the major part is the `v1` in the names of the events."""

BINDING = "0.5.0"


class Role(StrEnum):
    """Who takes part."""

    PRODUCER = "producer"
    ANALYZER = "analyzer"
    MONITOR = "monitor"
    NOTIFIER = "notifier"
    CURATOR = "curator"
    OPERATOR = "operator"
    CONSUMER = "consumer"


_ROLES = {
    Role.PRODUCER: "Publishes prompts, and what people say of the results.",
    Role.ANALYZER: "Analyses prompts, measures, obeys the rollout.",
    Role.MONITOR: "Folds a service's log into windows, gates, the rollout and alerts.",
    Role.NOTIFIER: "Brings alerts to people, and says which it could not deliver.",
    Role.CURATOR: "Brings feedback into the log, and keeps the cases worth a look.",
    Role.OPERATOR: "Gives commands and sees what they did: a person or a pipeline.",
    Role.CONSUMER: "Anybody downstream: results, control events, alerts.",
}

_SEND: dict[Topic, tuple[Role, ...]] = {
    Topic.PROMPTS: (Role.PRODUCER,),
    Topic.ENRICHED: (Role.ANALYZER,),
    Topic.REJECTED: (Role.ANALYZER,),
    Topic.FEEDBACK: (Role.PRODUCER, Role.OPERATOR),
    Topic.FEEDBACK_REJECTED: (Role.CURATOR,),
    Topic.CURATED: (Role.CURATOR,),
    Topic.COMMANDS: (Role.OPERATOR,),
    Topic.LOG: (Role.ANALYZER, Role.MONITOR, Role.CURATOR),
    Topic.METRICS: (Role.MONITOR,),
    Topic.CONTROL: (Role.MONITOR,),
    Topic.ROLLOUT: (Role.MONITOR,),
    Topic.ALERTS: (Role.MONITOR,),
    Topic.UNDELIVERED: (Role.NOTIFIER,),
}

_RECEIVE: dict[Topic, tuple[Role, ...]] = {
    Topic.PROMPTS: (Role.ANALYZER,),
    Topic.ENRICHED: (Role.CONSUMER, Role.CURATOR),
    Topic.REJECTED: (Role.OPERATOR, Role.CONSUMER),
    Topic.FEEDBACK: (Role.CURATOR,),
    Topic.FEEDBACK_REJECTED: (Role.OPERATOR, Role.CONSUMER),
    Topic.CURATED: (Role.OPERATOR, Role.CONSUMER),
    Topic.COMMANDS: (Role.MONITOR,),
    Topic.LOG: (Role.MONITOR,),
    Topic.METRICS: (Role.OPERATOR, Role.CONSUMER),
    Topic.CONTROL: (Role.OPERATOR, Role.CONSUMER, Role.CURATOR),
    Topic.ROLLOUT: (Role.ANALYZER, Role.MONITOR, Role.OPERATOR),
    Topic.ALERTS: (Role.NOTIFIER, Role.OPERATOR, Role.CONSUMER),
    Topic.UNDELIVERED: (Role.OPERATOR,),
}

_INTO_LOG: dict[str, Role] = {
    "FeedbackBatch": Role.CURATOR,
    "Heartbeat": Role.ANALYZER,
    "MeasurementBatch": Role.ANALYZER,
}
"""Who writes what to the log; the rest is forwarded or ticked by the monitor."""

_HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes in Kafka's binary content mode; values are UTF-8.",
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {
            "type": "string",
            "minLength": 1,
            "description": "Unique together with the source; equal in a repetition.",
        },
        "ce_source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "ce_type": {"type": "string", "minLength": 1},
        "ce_subject": {"type": "string", "description": "The service."},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_correlationid": {"type": "string", "description": "The rollout, where there is one."},
        "ce_causationid": {
            "type": "string",
            "description": "Partition and offset of the log record that caused it, where one did.",
        },
        "content-type": {"type": "string", "const": "application/json"},
    },
}
_REQUIRED = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time",
             "content-type"]  # fmt: skip


def asyncapi_document() -> dict[str, Any]:
    """The whole document.

    Raises:
        SchemaError: an event is in no topic, or a topic has no role that sends or receives it.
    """
    placed = {event.name for spec in TOPICS for event in events_of(spec.topic)}
    for event in catalogue():
        if event.name not in placed:
            raise SchemaError(
                f"{event.title} has a CloudEvents type but no topic: name it in the content of one "
                "in schemas.topics.TOPICS"
            )
    settings = KafkaSettings()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:driftgate",
        "info": {
            "title": "driftgate",
            "version": CONTRACT_VERSION,
            "description": (
                "Watches a semantic enhancement of prompt analysis on Kafka while it is rolled "
                "out, and takes it back when it does harm.\n\nTopic names, and all group and "
                "transactional ids, carry the prefix of the installation (none by default). "
                "Within a major version fields are only added: ignore the ones you do not know."
            ),
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": role.value, "description": text} for role, text in _ROLES.items()],
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap_servers}",
                "protocol": "kafka",
                "variables": {
                    "bootstrap_servers": {
                        "default": settings.bootstrap_servers,
                        "description": "host:port, comma-separated.",
                    }
                },
            }
        },
        "channels": {spec.topic.value: _channel(spec, settings) for spec in TOPICS},
        "operations": dict(sorted(_operations().items())),
        "components": {
            "messages": {
                event.title: _message(event, spec)
                for spec in TOPICS
                for event in events_of(spec.topic)
            },
            "schemas": {"CloudEventHeaders": _HEADERS},
        },
    }


def _channel(spec: TopicSpec, settings: KafkaSettings) -> dict[str, Any]:
    config = {name: _typed(name, value) for name, value in spec.config().items()}
    scale = "analyzers" if spec.spread == "prompts" else "monitors"
    return {
        "address": spec.topic.value,
        "description": (
            f"Key: {spec.key}. Partitions: the setting `{spec.spread.removesuffix('s')}_partitions`"
            f" ({settings.partitions(spec.spread)} by default), the most {scale} that can share "
            "the work."
        ),
        "messages": {
            event.title: {"$ref": f"#/components/messages/{event.title}"}
            for event in events_of(spec.topic)
        },
        "bindings": {
            "kafka": {
                "topic": spec.topic.value,
                "partitions": settings.partitions(spec.spread),
                "replicas": settings.replication_factor,
                "topicConfiguration": config,
                "bindingVersion": BINDING,
            }
        },
    }


def _typed(name: str, value: str) -> Any:
    """A topic setting as the bindings want it: a list of policies, whole numbers."""
    if name == "cleanup.policy":
        return value.split(",")
    return int(value) if value.isdigit() else value


def _message(event: Event, spec: TopicSpec) -> dict[str, Any]:
    summary, _, rest = inspect.cleandoc(event.type.__doc__ or "").partition("\n\n")
    packed = spec.topic is Topic.LOG
    if event.type is MeasurementBatch:
        rest = _columns(COLUMNS, RowFlag)
    elif event.type is FeedbackBatch:
        rest = f"{rest}\n\n{_columns(FEEDBACK_COLUMNS, FeedbackFlag)}"
    message: dict[str, Any] = {
        "name": event.ce_type or event.name,
        "title": event.title,
        "summary": " ".join(summary.split()).replace("``", "`"),
        "contentType": "application/msgpack" if packed else "application/json",
        "payload": {"$ref": f"./{SCHEMA_FOLDER}/{event.file}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": spec.key},
                "bindingVersion": BINDING,
            }
        },
    }
    if rest:
        message["description"] = rest.replace("``", "`")
    if event.ce_type is not None and not packed:
        message["headers"] = _headers(event, optional=inbound(spec.topic))
    return message


def _headers(event: Event, *, optional: bool) -> dict[str, Any]:
    own: dict[str, Any] = {
        "type": "object",
        "properties": {"ce_type": {"type": "string", "const": event.ce_type}},
    }
    if not optional:
        own["required"] = _REQUIRED
    return {"allOf": [{"$ref": "#/components/schemas/CloudEventHeaders"}, own]}


def _columns(table: Mapping[str, Any], flag_type: type[IntFlag]) -> str:
    """What the schema cannot say of a batch: the columns behind the bytes."""
    columns = [f"| `{name}` | {dtype.name} | {dtype.itemsize} |" for name, dtype in table.items()]
    flags = [f"| {flag.value} | `{flag.name}` |" for flag in flag_type]
    return (
        "The value is a msgpack map. A column is msgpack `bin` (the schema, which knows JSON only, "
        "says base64): a little-endian array, one element a row, all of the same length.\n\n"
        + _table("| column | element | bytes a row |", columns)
        + "\n\nBits of `flags`:\n\n"
        + _table("| bit | meaning |", flags)
    )


def _table(head: str, rows: list[str]) -> str:
    rule = "|" + "---|" * (head.count("|") - 1)
    return "\n".join([head, rule, *rows])


def _operations() -> dict[str, Any]:
    found = {}
    for action, roles in (("send", _SEND), ("receive", _RECEIVE)):
        for spec in TOPICS:
            if spec.topic not in roles:
                raise SchemaError(
                    f"topic {spec.topic} has no role that may {action}: add it to "
                    f"_{action.upper()} in schemas/asyncapi.py"
                )
            for role in roles[spec.topic]:
                found[f"{role}.{action}.{spec.topic}"] = _operation(role, action, spec)
    return found


def _operation(role: Role, action: str, spec: TopicSpec) -> dict[str, Any]:
    events = events_of(spec.topic)
    if spec.topic is Topic.LOG and action == "send":
        events = tuple(e for e in events if _INTO_LOG.get(e.title, Role.MONITOR) is role)
    channel = f"#/channels/{spec.topic}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "title": f"{role} {action}s {', '.join(event.title for event in events)}",
        "tags": [{"name": role.value}],
        "messages": [{"$ref": f"{channel}/messages/{event.title}"} for event in events],
    }
