"""Publishes prompts from a JSONL or CSV file."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from driftgate.errors import DriftgateError
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["BadRow", "Produced", "produce", "read_prompts", "repeated"]

_KNOWN = ("id", "user_id", "domain", "context", "submitted_at")
_MAX_REQUEST_BYTES = 4 * 2**20
_MAX_PROMPT_BYTES = _MAX_REQUEST_BYTES - 4096
"""Beside it a record has its key and Kafka's own fields."""
_MAX_CELL_CHARS = 64 * 2**20
_BOM = b"\xef\xbb\xbf"


class BadRow(NamedTuple):
    """A row that is no prompt."""

    line: int
    reason: str


class Produced(NamedTuple):
    """What came of publishing."""

    published: int
    bad_rows: list[BadRow]


def read_prompts(path: Path) -> Iterator[PromptSubmitted | BadRow]:
    """The prompts of a file.

    A row's text is in `prompt` or `text`; `id`, `user_id`, `domain`, `context` and `submitted_at`
    mean what they say, other plain values become attributes. A row without an id is named after
    the file and its line, so that keys are unique.

    Raises:
        DriftgateError: the file cannot be read or is of no known kind.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".csv"):
        raise DriftgateError(f"{path}: is neither .jsonl nor .csv")
    try:
        rows = _csv_rows(path) if suffix == ".csv" else _jsonl_rows(path)
        for line, row in rows:
            yield row if isinstance(row, BadRow) else _prompt(path.stem, line, row)
    except UnicodeDecodeError as error:
        raise DriftgateError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DriftgateError(f"{path}: cannot be read: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    with path.open("rb") as file:
        for line, data in enumerate(file, 1):
            text = data.removeprefix(_BOM) if line == 1 else data
            if text.strip():
                yield line, _json_row(line, text)


def _json_row(line: int, text: bytes) -> Mapping[str, Any] | BadRow:
    try:
        row = json.loads(text.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return BadRow(line, f"not UTF-8: {error}")
    except ValueError as error:
        return BadRow(line, f"not JSON: {error}")
    except RecursionError:
        return BadRow(line, "nested too deeply")
    return row if isinstance(row, dict) else BadRow(line, "not a JSON object")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    # The default of 128 KiB would end the file at a large cell; how large is judged by its row.
    csv.field_size_limit(_MAX_CELL_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"text", "prompt"} & set(reader.fieldnames or ()):
            raise DriftgateError(f"{path}: has no column `prompt` or `text`")
        for row in reader:
            if None in row:
                yield reader.line_num, BadRow(reader.line_num, "more cells than columns")
            else:
                yield reader.line_num, {k: v for k, v in row.items() if v}


def _prompt(stem: str, line: int, row: Mapping[str, Any]) -> PromptSubmitted | BadRow:
    text = row.get("prompt", row.get("text"))
    if not isinstance(text, str):
        return BadRow(line, "has no text in `prompt` or `text`")
    attributes = {
        name: value
        for name, value in row.items()
        if name not in ("prompt", "text", *_KNOWN) and isinstance(value, str | bool | int | float)
    }
    fields = {name: row[name] for name in _KNOWN if row.get(name) is not None}
    fields.setdefault("id", f"{stem}-{line}")
    for name in ("id", "user_id"):
        if type(fields.get(name)) is int:  # as many tables have it
            fields[name] = str(fields[name])
    try:
        prompt = msgspec.convert(
            {**fields, "prompt": text, "attributes": attributes}, PromptSubmitted, strict=False
        )
        size = len(msgspec.json.encode(prompt))
    except (msgspec.ValidationError, OverflowError) as error:
        return BadRow(line, str(error))
    except UnicodeEncodeError as error:
        return BadRow(line, f"not text: {error.reason}")
    if size > _MAX_PROMPT_BYTES:
        return BadRow(line, f"{size} bytes are more than a record of {_MAX_PROMPT_BYTES} bytes")
    return prompt


async def produce(
    kafka: KafkaSettings,
    rows: Iterable[PromptSubmitted | BadRow],
    *,
    rate_per_s: float = 0.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Produced:
    """Publish prompts, each keyed by its id, and wait until all are delivered.

    Args:
        kafka: where.
        rows: the prompts; bad rows are collected.
        rate_per_s: prompts a second; 0 is as fast as the broker takes them.
        progress: told the number published so far.

    Raises:
        aiokafka.errors.KafkaError: a prompt could not be delivered.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=10,
        max_request_size=_MAX_REQUEST_BYTES,
    )
    await producer.start()
    bad: list[BadRow] = []
    published = 0
    futures: list[asyncio.Future[Any]] = []
    started = time.monotonic()
    try:
        for row in rows:
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            if rate_per_s:
                await asyncio.sleep(max(started + published / rate_per_s - time.monotonic(), 0))
            try:
                futures.append(
                    await producer.send(
                        kafka.topic(Topic.PROMPTS),
                        key=(row.id or "").encode() or None,
                        value=msgspec.json.encode(row),
                    )
                )
            except MessageSizeTooLargeError:
                bad.append(BadRow(0, f"prompt {row.id}: larger than {_MAX_REQUEST_BYTES} bytes"))
                continue
            published += 1
            progress(published)
            if len(futures) >= 1000:
                await asyncio.gather(*futures)
                futures.clear()
        await asyncio.gather(*futures)
    finally:
        await producer.stop()
    return Produced(published, bad)


def repeated(prompts: list[PromptSubmitted], times: int | None) -> Iterator[PromptSubmitted]:
    """Prompts over and over, with new ids from the second time on; for ever when None."""
    rounds = itertools.count() if times is None else range(times)
    for number in rounds:
        for prompt in prompts:
            yield (
                prompt
                if number == 0
                else msgspec.structs.replace(prompt, id=f"{prompt.id}-{number}")
            )
