"""Which events there are, found in the tables of the contract: no second list to keep.

The tables are :data:`schemas.topics.TOPICS` (what each topic holds),
:data:`schemas.cloudevents.EVENT_TYPES` (CloudEvents types) and the tagged unions that a topic's
content names (``ControlEvent``).
"""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any, get_args

import msgspec

import schemas
from schemas.cloudevents import EVENT_TYPES
from schemas.control import Decision
from schemas.errors import SchemaError
from schemas.topics import TOPICS, Topic, TopicSpec

__all__ = ["Event", "catalogue", "event_named", "events_of", "inbound"]

_INBOUND = " (in)"
"""Marks, in a topic's content, what is made by others: its CloudEvents headers are optional."""


class Event(msgspec.Struct, frozen=True):
    """A type of event and what it is called."""

    type: type[msgspec.Struct]
    ce_type: str | None
    """CloudEvents type; None for what carries no CloudEvents headers."""
    name: str
    """Versioned name, for example ``prompt.enriched.v1``; unique."""

    @property
    def title(self) -> str:
        """The name of the struct."""
        return self.type.__name__

    @property
    def file(self) -> str:
        """Name of its JSON Schema file. Others link to it: it never changes."""
        stem, _, version = self.name.rpartition(".")
        return f"{re.sub(r'[._]', '-', stem)}.{version}.schema.json"

    @property
    def urn(self) -> str:
        """Its identity in JSON Schema: no host, so that nothing seems to be served anywhere."""
        stem, _, version = self.name.rpartition(".")
        return f"urn:driftgate:{re.sub(r'[._]', '-', stem)}:{version}"


@cache
def catalogue() -> tuple[Event, ...]:
    """All events: of every topic, in the order of the topic table, then the rest.

    Raises:
        SchemaError: the tables do not fit together.
    """
    types = [type_ for spec in TOPICS for type_ in _types_of(spec)]
    events = [_event(type_) for type_ in dict.fromkeys([*types, *EVENT_TYPES])]
    for attribute in ("name", "title"):
        values = [getattr(event, attribute) for event in events]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise SchemaError(f"two events have the same {attribute}: {', '.join(twice)}")
    return tuple(events)


def events_of(topic: Topic) -> tuple[Event, ...]:
    """The events that a topic holds.

    Raises:
        SchemaError: the topic's content names something that is no event.
    """
    spec = next(spec for spec in TOPICS if spec.topic is topic)
    return tuple(_event(type_) for type_ in _types_of(spec))


def inbound(topic: Topic) -> bool:
    """Whether others write to the topic, with or without CloudEvents headers."""
    return next(spec for spec in TOPICS if spec.topic is topic).content.endswith(_INBOUND)


def event_named(name: str) -> Event:
    """An event by its CloudEvents type, its versioned name or the name of its struct.

    Raises:
        SchemaError: there is none.
    """
    for event in catalogue():
        if name in {event.ce_type, event.name, event.title}:
            return event
    known = ", ".join(event.ce_type or event.name for event in catalogue())
    raise SchemaError(f"no event is called {name!r}; there are: {known}")


def _event(type_: type[msgspec.Struct]) -> Event:
    if issubclass(type_, Decision):
        ce_type: str | None = f"driftgate.{type_.__struct_config__.tag}.v1"
    else:
        ce_type = EVENT_TYPES.get(type_)
    if ce_type is not None:
        return Event(type_, ce_type, ce_type.removeprefix("driftgate."))
    words = re.findall(r"[A-Z][a-z0-9]*", type_.__name__)
    return Event(type_, None, ".".join([*words, "v1"]).lower())


def _types_of(spec: TopicSpec) -> tuple[type[msgspec.Struct], ...]:
    found: list[type[msgspec.Struct]] = []
    for name in spec.content.removesuffix(_INBOUND).split(","):
        value = _exported().get(name.strip())
        members = get_args(value) if isinstance(value, UnionType) else (value,)
        for member in members:
            if not (isinstance(member, type) and issubclass(member, msgspec.Struct)):
                raise SchemaError(
                    f"topic {spec.topic}: its content names {name.strip()!r}, which is no "
                    "struct or union of structs that a module of `schemas` exports in __all__"
                )
            found.append(member)
    return tuple(found)


@cache
def _exported() -> dict[str, Any]:
    """Everything that the modules of the contract export, by name."""
    names = (module.name for module in pkgutil.iter_modules(schemas.__path__, "schemas."))
    modules = [import_module(name) for name in names if name not in _NOT_CONTRACT]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


_NOT_CONTRACT = {"schemas.asyncapi", "schemas.catalogue", "schemas.generate"}
"""Modules that read the contract; importing the one that runs as a script would load it twice."""
