"""`driftgate produce`: files become prompts, and rows that are none are said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from driftgate.errors import Exit
from driftgate.producing import BadRow, produce, read_prompts
from driftgate.reading import TopicReader
from schemas import cloudevents
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.contract import assert_valid
from tests.support.processes import Driftgate, Launch


async def published(kafka: KafkaSettings) -> list[tuple[bytes | None, PromptSubmitted]]:
    """Key and prompt of every record, each held against the contract."""
    async with TopicReader(kafka, Topic.PROMPTS) as reader:
        records = [record async for record in reader.to_end()]
    for record in records:
        assert_valid(Topic.PROMPTS, record.headers, record.value)
    return [(r.key, cloudevents.decode_json(r.value, PromptSubmitted)) for r in records]


def texts(found: Sequence[tuple[bytes | None, PromptSubmitted]]) -> set[str]:
    return {one.prompt for _, one in found}


def run(process: Driftgate) -> tuple[int, str]:
    """Exit code and what was said."""
    return process.wait(), process.log


def test_jsonl_is_published(kafka: KafkaSettings, launch: Launch, tmp_path: Path) -> None:
    """Rows become prompts keyed by their ids, with attributes; rows without an id get one."""
    file = tmp_path / "ask.jsonl"
    rows = [
        {"prompt": "Explain generators", "id": "g", "user_id": "u", "domain": "backend", "plan": 1},
        {"text": "Explain decorators", "id": 7, "free": True, "nested": {"is": "left out"}},
        {"prompt": "Erkläre Häuser 🏠"},
    ]
    file.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    code, said = run(launch("produce", str(file), "--json", kafka=kafka))
    assert code == Exit.OK
    assert json.loads(said.splitlines()[-1]) == {"published": 3, "refused": 0}
    by_key = dict(asyncio.run(published(kafka)))
    assert set(by_key) == {b"g", b"7", b"ask-5"}
    assert (by_key[b"g"].user_id, by_key[b"g"].domain) == ("u", "backend")
    assert by_key[b"g"].attributes == {"plan": 1.0}
    assert by_key[b"7"].attributes == {"free": True}
    assert by_key[b"ask-5"].prompt == "Erkläre Häuser 🏠"


def test_csv_is_published(kafka: KafkaSettings, launch: Launch, tmp_path: Path) -> None:
    """A table as a spreadsheet writes it: byte order mark, quotes, line breaks in cells."""
    file = tmp_path / "ask.csv"
    file.write_bytes(
        b"\xef\xbb\xbftext,id,plan\r\n"
        b'"Explain ""closures"",\r\nplease",a,pro\r\n'
        b"Explain loops,b,\r\n"
    )
    code, said = run(launch("produce", str(file), kafka=kafka))
    assert code == Exit.OK
    assert "2 prompts published, 0 rows refused" in said
    by_key = dict(asyncio.run(published(kafka)))
    assert by_key[b"a"].prompt == 'Explain "closures",\r\nplease'
    assert by_key[b"a"].attributes == {"plan": "pro"}
    assert by_key[b"b"].attributes == {}


def test_bad_rows_are_named_and_the_rest_is_published(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Every row that is no prompt is said with its line and reason, and the exit code is 1."""
    file = tmp_path / "mixed.jsonl"
    lines = [
        b"\xef\xbb\xbf" + b'{"prompt": "the first of them"}',
        b"{not json",
        b"[1, 2]",
        b'{"question": "no text"}',
        b'{"prompt": 12}',
        b'{"prompt": "good", "submitted_at": "yesterday"}',
        b'{"prompt": "half a pair \\ud800"}',
        b'{"prompt": "caf\xe9"}',
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": "not a number", "rate": NaN}',
        b'{"prompt": "huge", "rate": 1' + b"0" * 400 + b"}",
        json.dumps({"prompt": "five megabytes " * 350_000}).encode(),
        json.dumps({"prompt": "long id", "id": "i" * 201}).encode(),
        b'{"prompt": "the last of them"}',
    ]
    file.write_bytes(b"\n".join(lines))
    code, said = run(launch("produce", str(file), kafka=kafka))
    assert code == Exit.FAILED
    assert "Traceback" not in said
    assert "2 prompts published, 12 rows refused" in said
    for number in range(2, 14):
        assert f"mixed.jsonl:{number}: " in said, said
    assert texts(asyncio.run(published(kafka))) == {"the first of them", "the last of them"}


def test_bad_rows_of_a_table_are_named(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """Too many cells, no text, and a cell of 5 MB cost their row and no other."""
    file = tmp_path / "mixed.csv"
    large = "five megabytes " * 350_000
    rows = ["id,prompt", "a,Explain one", "b,two,three", "c,", f"d,{large}", "e,Explain five"]
    file.write_text("\n".join(rows), encoding="utf-8")
    code, said = run(launch("produce", str(file), kafka=kafka))
    assert code == Exit.FAILED
    assert "2 prompts published, 3 rows refused" in said
    for number in (3, 4, 5):
        assert f"mixed.csv:{number}: " in said, said
    assert texts(asyncio.run(published(kafka))) == {"Explain one", "Explain five"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("table.csv", b"question,id\nwhat?,1\n", "has no column `prompt` or `text`"),
        ("empty.csv", b"", "has no column `prompt` or `text`"),
        ("latin.csv", b"prompt\ncaf\xe9 au lait\n", "is not UTF-8"),
        ("notes.txt", b"Explain one\n", "is neither .jsonl nor .csv"),
    ],
)
def test_file_that_cannot_be_used_is_refused(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """A whole file that makes no sense ends with the reason, and nothing is published."""
    file = tmp_path / name
    file.write_bytes(content)
    code, said = run(launch("produce", str(file), kafka=kafka))
    assert code == Exit.FAILED
    assert reason in said
    assert "Traceback" not in said
    assert asyncio.run(published(kafka)) == []


async def test_rate_is_kept(kafka: KafkaSettings) -> None:
    """Prompts come no faster than asked for, and progress is told for each."""
    told: list[int] = []
    rows = [PromptSubmitted(prompt=f"Explain {n}", id=f"p-{n}") for n in range(11)]
    started = monotonic()
    done = await produce(kafka, [*rows, BadRow(12, "bad")], rate_per_s=20.0, progress=told.append)
    assert monotonic() - started >= 0.5
    assert told == list(range(1, 12))
    assert done.published == 11
    assert done.bad_rows == [BadRow(12, "bad")]
    assert len(await published(kafka)) == 11


async def test_many_prompts_are_all_delivered(kafka: KafkaSettings) -> None:
    """More than one round of deliveries, with non-ASCII ids as keys."""
    rows = [PromptSubmitted(prompt=f"Explain {n}", id=f"φ-{n}") for n in range(2_500)]
    assert (await produce(kafka, rows)).published == 2_500
    found = await published(kafka)
    assert sorted(one.id or "" for _, one in found) == sorted(one.id or "" for one in rows)
    assert all(key == (one.id or "").encode() for key, one in found)


async def test_prompt_beyond_the_topic_is_a_bad_row(kafka: KafkaSettings) -> None:
    """One prompt that the broker would refuse does not end the rest."""
    rows = [PromptSubmitted(prompt=text, id=text[:3]) for text in ("one", "two" * 1_500_000, "six")]
    done = await produce(kafka, rows)
    assert done.published == 2
    assert [("two" in bad.reason, "4194304 bytes" in bad.reason) for bad in done.bad_rows] == [
        (True, True)
    ]
    assert texts(await published(kafka)) == {"one", "six"}


def test_broker_that_is_away_is_said_with_the_cure(
    kafka: KafkaSettings, launch: Launch, tmp_path: Path
) -> None:
    """A person who waits gets an answer with what to do, and the exit code of a missing broker."""
    file = tmp_path / "ask.jsonl"
    file.write_text('{"prompt": "Explain one"}')
    away = msgspec.structs.replace(kafka, bootstrap_servers="127.0.0.1:1")
    code, said = run(launch("produce", str(file), kafka=away))
    assert code == Exit.BROKER
    assert "driftgate broker" in said
    assert list(read_prompts(file))
