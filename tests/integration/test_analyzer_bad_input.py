"""Whatever is in the prompts topic ends in one result, and the worker goes on (M13-M15, M26)."""

from __future__ import annotations

import json

import pytest

from analyzer.pipeline import MAX_DEAD_LETTER_BYTES, MAX_KEY_BYTES
from schemas.log import RowFlag
from schemas.prompts import RejectionCode
from schemas.settings import KafkaSettings
from tests.support.topics import Prompt, measured, prompt, submit, wait_for_outcome
from tests.support.workers import settings_of, working

GOOD = "Explain how a hash table resolves collisions"


def value(**fields: object) -> Prompt:
    return (b"k", json.dumps(fields).encode())


REJECTED: dict[str, tuple[Prompt, RejectionCode]] = {
    "not JSON": ((b"k", b"{prompt: nope"), RejectionCode.NOT_JSON),
    "bytes": ((b"k", bytes(range(128))), RejectionCode.NOT_JSON),
    "two values": ((b"k", b'{"prompt": "one"} {"prompt": "two"}'), RejectionCode.NOT_JSON),
    "array": ((b"k", b"[]"), RejectionCode.WRONG_SHAPE),
    "no prompt": (value(text=GOOD), RejectionCode.WRONG_SHAPE),
    "number": (value(prompt=7), RejectionCode.WRONG_SHAPE),
    "null": (value(prompt=None), RejectionCode.WRONG_SHAPE),
    "bad time": (value(prompt=GOOD, submitted_at="yesterday"), RejectionCode.WRONG_SHAPE),
    "nested attribute": (value(prompt=GOOD, attributes={"a": {}}), RejectionCode.WRONG_SHAPE),
    "long user": (value(prompt=GOOD, user_id="u" * 201), RejectionCode.WRONG_SHAPE),
    "deep": ((b"k", b'{"prompt": ' + b"[" * 50_000), RejectionCode.WRONG_SHAPE),
    "deep and closed": (
        (b"k", b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b', "prompt": "deep"}'),
        RejectionCode.WRONG_SHAPE,
    ),
    "2 MB": (value(prompt="Explain this text. " * 110_000), RejectionCode.RECORD_TOO_LARGE),
    "long": (value(prompt="Explain these 3 things now. " * 1_000), RejectionCode.TOO_LONG),
    "empty": (value(prompt=""), RejectionCode.EMPTY),
    "white": (value(prompt=" \t\r\n\u2003\u200b"), RejectionCode.EMPTY),
    "no bytes": ((b"k", b""), RejectionCode.EMPTY),
    "tombstone": ((b"k", None), RejectionCode.EMPTY),
    "short": (value(prompt="x"), RejectionCode.TOO_SHORT),
    "control": (value(prompt="\x01\x02\x03\x1b\x7f" * 9), RejectionCode.CONTROL_CHARACTERS),
    "NUL": (value(prompt=f"{GOOD}\0"), RejectionCode.CONTROL_CHARACTERS),
    "invalid UTF-8": ((b"k", b'{"prompt": "caf\xe9 au lait"}'), RejectionCode.INVALID_UTF8),
    "half a surrogate": ((b"k", b'{"prompt": "hello \\ud800 there"}'), RejectionCode.INVALID_UTF8),
    "repetition": (value(prompt="again and " * 100), RejectionCode.REPETITION),
    "gibberish": (value(prompt="asdfghjkl qwertyuiop zxcvbnm"), RejectionCode.GIBBERISH),
    "huge key": ((b"k" * 1_500_000, prompt(GOOD)[1]), RejectionCode.RECORD_TOO_LARGE),
    "huge key, bad value": ((b"\xff" * 1_500_000, b"{"), RejectionCode.RECORD_TOO_LARGE),
}

ACCEPTED: dict[str, Prompt] = {
    "null key": (None, prompt(GOOD)[1]),
    "empty key": (b"", prompt(GOOD)[1]),
    "key that is no text": (b"\xff\xfe\x00", prompt(GOOD)[1]),
    "largest key": (b"k" * MAX_KEY_BYTES, prompt(GOOD)[1]),
    "byte order mark": (b"k", b"\xef\xbb\xbf" + json.dumps({"prompt": GOOD}).encode()),
    "unknown fields": value(prompt=GOOD, zebra={"deep": [1]}),
    "duplicate id": prompt(GOOD, "same"),
    "duplicate id again": prompt(GOOD, "same"),
    "repeated member": (b"k", b'{"prompt": "x", "prompt": "Explain closures in Python"}'),
    "longest prompt": value(
        prompt="".join(f"Item {n} costs {n * 37} coins. " for n in range(2000))[:20_000]
    ),
    "future": value(prompt=GOOD, submitted_at="2199-01-01T00:00:00Z"),
    "ancient": value(prompt=GOOD, submitted_at="1970-01-01T00:00:00Z"),
    "end of time": value(prompt=GOOD, submitted_at="9999-12-31T23:59:59.999999-23:59"),
    "beginning of time": value(prompt=GOOD, submitted_at="0001-01-01T00:00:00+23:59"),
    "no zone": value(prompt=GOOD, submitted_at="2026-01-01T00:00:00"),
}


async def test_bad_input_is_rejected_with_its_code(kafka: KafkaSettings) -> None:
    """Each bad record is in `prompts.rejected` with its code, each good one is enriched, once."""
    names = list(REJECTED) + list(ACCEPTED)
    sent = await submit(kafka, [one for one, _ in REJECTED.values()] + list(ACCEPTED.values()))
    sent += await submit(kafka, [prompt(GOOD, "ancient record")], timestamp_ms=0)
    sent += await submit(kafka, [prompt(GOOD, "future record")], timestamp_ms=7_258_118_400_000)
    names += ["ancient record", "future record"]
    async with working(settings_of(kafka, max_poll_records=8)):
        found = await wait_for_outcome(kafka, len(sent))
        after = await submit(kafka, [prompt("The worker still works after all of this")])
        found = await wait_for_outcome(kafka, len(sent) + 1)
    by_position = dict(zip(sent, names, strict=True))
    codes = {by_position[one.source]: one.code for one in found.rejected}
    assert codes == {name: code for name, (_, code) in REJECTED.items()}
    enriched = {by_position.get(one.source, "after") for one in found.enriched}
    assert enriched == {*ACCEPTED, "ancient record", "future record", "after"}
    assert found.positions == sorted(sent + after)


async def test_bad_input_is_measured_once_each(kafka: KafkaSettings) -> None:
    """The measurement batches hold one row a record; rejected ones carry the flag."""
    sent = await submit(kafka, [one for one, _ in REJECTED.values()] + list(ACCEPTED.values()))
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    rows = await measured(kafka)
    assert rows.rows == len(sent)
    assert rows.positions == sorted((one.partition, one.offset) for one in sent)
    flagged = [place for place, flags in rows.flags.items() if flags & RowFlag.REJECTED]
    assert sorted(flagged) == sorted((r.source.partition, r.source.offset) for r in found.rejected)
    assert not any(flags & RowFlag.SYSTEM_ERROR for flags in rows.flags.values())


async def test_dead_letter_holds_what_came_in(kafka: KafkaSettings) -> None:
    """A dead letter has the payload, key and source; a large one is cut and says so."""
    large = b"x" * (MAX_DEAD_LETTER_BYTES + 1)
    sent = await submit(kafka, [(b"a", b"{"), (b"b", large), (b"c" * (MAX_KEY_BYTES + 1), b"{")])
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    small, cut, keyless = (
        next(one for one in found.rejected if one.source == source) for source in sent
    )
    assert (small.payload, small.payload_bytes, small.payload_truncated) == (b"{", 1, False)
    assert (cut.payload, cut.payload_bytes) == (large[:-1], len(large))
    assert cut.payload_truncated
    assert f"{MAX_KEY_BYTES + 1} bytes" in keyless.reason
    assert {record.key for record in found.records} == {b"a", b"b", None}


async def test_untrusted_event_time_is_no_lag(kafka: KafkaSettings) -> None:
    """Times that cannot be are accepted, and feed no lag metric (M26)."""
    names = ("future", "ancient", "end of time", "beginning of time")
    await submit(kafka, [ACCEPTED[name] for name in names])
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(names))
    assert [one.timings.queue_seconds for one in found.enriched] == [None] * len(names)


@pytest.mark.parametrize("timestamp_ms", [0, 7_258_118_400_000])
async def test_record_time_is_the_brokers(kafka: KafkaSettings, timestamp_ms: int) -> None:
    """A producer's clock decides nothing: the queueing time is measured on the broker's."""
    sent = await submit(
        kafka,
        [prompt(GOOD, "p", submitted_at="2020-01-01T00:00:00Z")],
        timestamp_ms=timestamp_ms,
    )
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    assert [one.timings.queue_seconds for one in found.enriched] == [None]
