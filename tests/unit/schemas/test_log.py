"""Records of the log: round trips, and every way in which a batch can contradict itself."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DecodeError
from schemas.log import (
    COLUMNS,
    LogRecord,
    MeasurementBatch,
    RowFlag,
    Rows,
    Tick,
    decode_log_record,
    encode_log_record,
)
from tests.support.samples import sample

LOG_RECORDS = get_args(LogRecord)

GOOD: dict[str, list[Any]] = {
    "partition": [0, 0, 1],
    "offset": [0, 9, 2],
    "flags": [RowFlag.SEMANTIC, RowFlag.CANDIDATE | RowFlag.SEMANTIC, RowFlag.REJECTED],
    "segment": [0, 1, 0],
    "processing_seconds": [0.25, 0.5, 0.0],
    "embed_seconds": [0.125, 0.25, 0.0],
    "rules_score": [0.5, 1.0, 0.0],
    "score": [0.75, 0.0, 0.0],
    "coherence": [1.0, 0.5, 0.0],
    "relevance": [0.5, 0.25, 0.0],
    "centroid_distance": [2.0, 0.5, 0.0],
    "prompt_chars": [20_000, 1, 0],
    "bucket": [0, 9_999, 65_535],
}


def batch(segments: int = 2, **columns: list[Any]) -> MeasurementBatch:
    """The good batch with other columns."""
    data = {
        name: np.array((GOOD | columns)[name], dtype=dtype).tobytes()
        for name, dtype in COLUMNS.items()
    }
    names = [f"s{i}" for i in range(segments)]
    return msgspec.structs.replace(sample(MeasurementBatch), segments=names, **data)


def test_columns_are_the_fields_of_batch_and_rows() -> None:
    """The column table, the bytes of a batch and the arrays of rows have the same names."""
    fields = {f.name for f in msgspec.structs.fields(MeasurementBatch) if f.type is bytes}
    assert list(COLUMNS) == [f.name for f in msgspec.structs.fields(Rows)] == list(GOOD)
    assert fields == set(COLUMNS)
    for dtype in COLUMNS.values():
        assert dtype.str[0] in "<|", f"{dtype} is not little-endian"


def test_rows_give_back_what_the_columns_hold() -> None:
    """Every value of a good batch, after the way through msgpack, in the type of its column."""
    record = decode_log_record(encode_log_record(batch()))
    assert isinstance(record, MeasurementBatch)
    rows = record.rows()
    assert len(rows) == 3
    for name, dtype in COLUMNS.items():
        column = getattr(rows, name)
        assert column.dtype == dtype
        assert column.tolist() == GOOD[name], name


def test_rows_are_chosen_by_flag() -> None:
    """``has`` says which rows carry a flag, ``where`` keeps them with all their columns."""
    rows = batch().rows()
    assert rows.has(RowFlag.SEMANTIC).tolist() == [True, True, False]
    assert rows.has(RowFlag.SHADOW).tolist() == [False, False, False]
    chosen = rows.where(rows.has(RowFlag.CANDIDATE))
    assert len(chosen) == 1
    for name in COLUMNS:
        assert getattr(chosen, name).tolist() == GOOD[name][1:2], name


def test_flags_fit_their_column() -> None:
    """Each flag is a bit of its own within the column's type."""
    bits = [flag.value for flag in RowFlag]
    assert len({*bits}) == len(bits)
    assert all(bit.bit_count() == 1 for bit in bits)
    assert max(bits) <= np.iinfo(COLUMNS["flags"]).max


def test_an_empty_batch_has_no_rows() -> None:
    """A batch without rows, and even without segments, is valid."""
    rows = batch(segments=0, **{name: [] for name in COLUMNS}).rows()
    assert len(rows) == 0
    assert len(rows.where(rows.has(RowFlag.CANDIDATE))) == 0


NAN, INF = float("nan"), float("inf")

WRONG_COLUMNS: list[tuple[str, dict[str, list[Any]], str]] = [
    *((f"{name}-nan", {name: [0.5, NAN, 0.5]}, f"column {name}: .*nan")
      for name in COLUMNS if COLUMNS[name].kind == "f"),
    *((f"{name}-infinity", {name: [0.5, INF, 0.5]}, f"column {name}: .*inf")
      for name in COLUMNS if COLUMNS[name].kind == "f"),
    *((f"{name}-negative", {name: [0.5, 0.5, -0.25]}, f"column {name}: values -0.25 to 0.5")
      for name in COLUMNS if COLUMNS[name].kind == "f"),
    *((f"{name}-above-1", {name: [0.5, 0.5, 1.5]}, rf"column {name}: .* outside \[0, 1.0\]")
      for name in ("rules_score", "score", "coherence", "relevance")),
    ("distance-above-2", {"centroid_distance": [0, 0, 2.5]}, r"centroid_distance: .*\[0, 2.0\]"),
    ("negative-chars", {"prompt_chars": [1, -1, 1]}, "negative prompt_chars"),
    ("bucket-of-none", {"bucket": [0, 10_000, 1]}, "column bucket: neither below 10000 nor 65535"),
    ("negative-partition", {"partition": [-1, 0, 0]}, "negative source partition or offset"),
    ("negative-offset", {"offset": [-1, 0, 1]}, "negative source partition or offset"),
    ("unknown-segment", {"segment": [0, 2, 1]}, "column segment: 2 of 2 segment names"),
    ("offset-back", {"offset": [9, 5, 2]}, "source offsets do not rise within a partition"),
    ("offset-twice", {"offset": [5, 5, 2]}, "source offsets do not rise within a partition"),
    (
        "offset-back-after-another-partition",
        {"partition": [0, 1, 0], "offset": [9, 2, 5]},
        "source offsets do not rise within a partition",
    ),
    ("one-column-shorter", {"score": [0.5, 0.5]}, "columns of unequal length: .*'score': 2"),
    ("one-column-empty", {"offset": []}, "columns of unequal length: .*'offset': 0"),
    ("one-column-longer", {"flags": [0, 0, 0, 0]}, "columns of unequal length: .*'flags': 4"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "reason"),
    [case[1:] for case in WRONG_COLUMNS],
    ids=[case[0] for case in WRONG_COLUMNS],
)
def test_a_batch_that_contradicts_itself_is_refused(
    columns: dict[str, list[Any]], reason: str
) -> None:
    """Wrong numbers are named with their column, and never reach the gates."""
    with pytest.raises(DecodeError, match=reason):
        batch(**columns).rows()


@pytest.mark.parametrize("name", [name for name, dtype in COLUMNS.items() if dtype.itemsize > 1])
def test_a_column_cut_within_an_element_is_refused(name: str) -> None:
    """Bytes that are no whole number of elements are not rounded down."""
    good = batch()
    cut = msgspec.structs.replace(good, **{name: getattr(good, name)[:-1]})
    with pytest.raises(DecodeError, match=f"column {name}: .* is no multiple of"):
        cut.rows()


def test_partitions_may_be_interleaved() -> None:
    """Offsets must rise within each partition only, in whatever order the partitions stand."""
    rows = batch(partition=[1, 0, 1], offset=[3, 9, 4]).rows()
    assert rows.offset.tolist() == [3, 9, 4]


@pytest.mark.parametrize("member", LOG_RECORDS, ids=lambda member: member.__name__)
def test_a_log_record_comes_back_as_its_own_type(member: Any) -> None:
    """Every kind of record survives the way through msgpack."""
    record = sample(member)
    decoded = decode_log_record(encode_log_record(record))
    assert type(decoded) is member
    assert decoded == record


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "a record of the log without a value"),
        (b"", "truncated"),
        (b"\xc1", "malformed"),
        (b"\x90", "Expected `object`, got `array`"),
        (b"\x81\x01\x02", "Expected `str`"),
        (msgspec.msgpack.encode({"service": "s"}), "missing required field `kind`"),
        (msgspec.msgpack.encode({"kind": "tock", "service": "s"}), "'tock'"),
        (msgspec.msgpack.encode({"kind": "tick"}), "missing required field `service`"),
        (b"\x82\xa4kind\xa4tick\xa7service\xa1\xff", "can't decode byte 0xff"),
        (b"\x82\xa4kind\xa4tick\xa1x" + b"\x91" * 100_000, "recursion"),
    ],
    ids=range(10),
)
def test_what_is_no_log_record_says_why(value: bytes | None, reason: str) -> None:
    """Whatever is in the log that is no record of it is the one error that the monitor handles."""
    with pytest.raises(DecodeError, match=reason):
        decode_log_record(value)


@given(st.data())
def test_a_damaged_record_is_refused_or_read(data: st.DataObject) -> None:
    """Any byte of a batch changed or cut off: a DecodeError or a batch, nothing else."""
    value = bytearray(encode_log_record(batch()))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(value)))
    try:
        record = decode_log_record(bytes(value[:end] if data.draw(st.booleans()) else value))
        if isinstance(record, MeasurementBatch):
            rows = record.rows()
            assert np.isfinite(rows.score).all()
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - most damage, but not all, is found


def test_fields_of_a_later_version_are_ignored() -> None:
    """A monitor reads the log of a newer analyzer."""
    value = msgspec.msgpack.encode({"kind": "tick", "service": "s", "mood": "calm"})
    assert decode_log_record(value) == Tick(service="s")
