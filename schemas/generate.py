"""Writes the contract for other languages: JSON Schema files and an AsyncAPI document.

``python -m schemas.generate`` writes them, with ``--check`` it only compares (exit code 1 and the
names of the files that are out of date).
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from schemas.asyncapi import ASYNCAPI_FILE, SCHEMA_FOLDER, asyncapi_document
from schemas.catalogue import Event, catalogue, event_named
from schemas.errors import SchemaError
from schemas.policy import Policy

__all__ = ["main", "out_of_date", "render", "schema_for", "write"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
POLICY = Event(Policy, None, "gate.policy.v1")
"""Not an event, but people write it by hand, and their editors can check it by its schema."""


def schema_for(event_type: type | str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an event's JSON value.

    Args:
        event_type: its struct, or its CloudEvents type, or the name of its struct.

    Raises:
        SchemaError: there is no such event.
    """
    name = event_type if isinstance(event_type, str) else event_type.__name__
    return _schema(POLICY if event_type is Policy else event_named(name))


def render() -> dict[str, str]:
    """The text of every generated file, by its path below the package.

    Raises:
        SchemaError: the tables of the contract do not fit together; the message says where.
    """
    files = {f"{SCHEMA_FOLDER}/{event.file}": _schema(event) for event in (*catalogue(), POLICY)}
    files[ASYNCAPI_FILE] = asyncapi_document()
    return {path: _text(document) for path, document in sorted(files.items())}


def out_of_date(folder: Path) -> list[str]:
    """The files that a run would change, add or delete, as ``path (what is wrong)``."""
    expected = render()
    found = []
    for path, text in expected.items():
        file = folder / path
        if not file.exists():
            found.append(f"{path} (missing)")
        elif file.read_text(encoding="utf-8") != text:
            found.append(f"{path} (out of date)")
    return found + [f"{path} (not of any event)" for path in _leftover(folder, expected)]


def write(folder: Path) -> list[str]:
    """Write every file that is out of date, delete what is left over, return their names."""
    changed = out_of_date(folder)
    expected = render()
    for path, text in expected.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    for path in _leftover(folder, expected):
        (folder / path).unlink()
    return changed


def main(arguments: Sequence[str] | None = None, folder: Path = Path(__file__).parent) -> int:
    """The command; returns its exit code: 0 done, 1 out of date, 2 the tables do not fit."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args(arguments)
    try:
        changed = out_of_date(folder) if options.check else write(folder)
    except SchemaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in changed:
        print(path)
    if not options.check:
        print(f"{len(changed)} of {len(render())} files changed")
    elif changed:
        print("run `python -m schemas.generate` and commit what it writes", file=sys.stderr)
        return 1
    return 0


def _schema(event: Event) -> dict[str, Any]:
    generated = msgspec.json.schema(event.type)
    definitions = generated.pop("$defs")
    body = definitions.pop(generated["$ref"].rpartition("/")[2])
    schema = {"$schema": DIALECT, "$id": event.urn, **body}
    if definitions:
        schema["$defs"] = dict(sorted(definitions.items()))
    _clean(schema)
    return schema


def _clean(schema: dict[str, Any]) -> None:
    """Docstrings lose their indentation and RST marks."""
    for part in _parts(schema):
        if isinstance(part.get("description"), str):
            part["description"] = inspect.cleandoc(part["description"]).replace("``", "`")


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _parts(child)


def _leftover(folder: Path, expected: dict[str, str]) -> list[str]:
    present = sorted((folder / SCHEMA_FOLDER).glob("*.schema.json"))
    paths = [f"{SCHEMA_FOLDER}/{file.name}" for file in present]
    return [path for path in paths if path not in expected]


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
