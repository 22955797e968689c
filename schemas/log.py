"""The records of `driftgate.log`: everything that a service's decisions are based on.

Values are msgpack maps with a ``kind`` field. A measurement batch carries columns: little-endian
arrays as bytes, one element a row, so that the monitor reads them with ``numpy.frombuffer``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntFlag, StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.drift import FourierSum
from schemas.errors import DecodeError
from schemas.feedback_batch import FeedbackBatch
from schemas.policy import Policy
from schemas.preflight import PreflightResult
from schemas.rollout import BUCKETS, NO_BUCKET

__all__ = [
    "COLUMNS",
    "CacheLookups",
    "Command",
    "CommandRecord",
    "CommandUnreadable",
    "Heartbeat",
    "LogRecord",
    "MeasurementBatch",
    "ModelState",
    "OperatorCommand",
    "RowFlag",
    "Rows",
    "SharedCache",
    "SharedCacheState",
    "Tick",
    "decode_log_record",
    "encode_log_record",
    "pooled_rows",
]


class RowFlag(IntFlag):
    """Bits of a measured row."""

    CANDIDATE = 1
    """Assigned to the candidate arm (otherwise control)."""
    REJECTED = 2
    """Went to `prompts.rejected`; only the source position is meaningful."""
    SEMANTIC = 4
    """The semantic columns are meaningful."""
    FALLBACK = 8
    """A semantic analysis was wanted and replaced by the rules result: a semantic error."""
    SYSTEM_ERROR = 16
    """The worker failed on this prompt outside the semantic half."""
    CACHE_LOOKUP = 32
    CACHE_HIT = 64
    SHADOW = 128
    """The candidate was computed but not served."""


_KNOWN_FLAGS = 255

COLUMNS: dict[str, np.dtype[np.generic]] = {
    "partition": np.dtype("<i4"),
    "offset": np.dtype("<i8"),
    "flags": np.dtype("<u2"),
    "segment": np.dtype("u1"),
    "processing_seconds": np.dtype("<f4"),
    "embed_seconds": np.dtype("<f4"),
    "rules_score": np.dtype("<f4"),
    "score": np.dtype("<f4"),
    "coherence": np.dtype("<f4"),
    "relevance": np.dtype("<f4"),
    "centroid_distance": np.dtype("<f4"),
    "prompt_chars": np.dtype("<i4"),
    "bucket": np.dtype("<u2"),
}
"""Column names, in the order of the fields, and their element types."""

Column = npt.NDArray[np.generic]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Measured rows as arrays, each of shape (rows,); see :data:`COLUMNS` for the types."""

    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    flags: npt.NDArray[np.uint16]
    segment: npt.NDArray[np.uint8]
    processing_seconds: npt.NDArray[np.float32]
    embed_seconds: npt.NDArray[np.float32]
    rules_score: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    coherence: npt.NDArray[np.float32]
    relevance: npt.NDArray[np.float32]
    centroid_distance: npt.NDArray[np.float32]
    prompt_chars: npt.NDArray[np.int32]
    bucket: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.offset)

    def where(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """The rows that a boolean array of shape (rows,) selects."""
        return Rows(**{name: getattr(self, name)[mask] for name in COLUMNS})

    def has(self, flag: RowFlag) -> npt.NDArray[np.bool_]:
        """A boolean array of shape (rows,): which rows carry a flag."""
        return np.asarray((self.flags & np.uint16(flag)) != 0)


class MeasurementBatch(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="measurement_batch"
):
    """What one poll of one worker measured: one row for each prompt, rejected ones included."""

    service: str
    worker_id: str
    incarnation: Annotated[str, Meta(description="Differs at each start of the worker.")]
    revision: Annotated[int, Meta(ge=0, description="Rollout revision that the rows were made by.")]
    rollout_id: str | None
    source_topic: str
    segments: Annotated[list[str], Meta(description="Names that the segment column indexes.")]
    partition: bytes
    offset: bytes
    flags: bytes
    segment: bytes
    processing_seconds: bytes
    embed_seconds: bytes
    rules_score: bytes
    score: bytes
    coherence: bytes
    relevance: bytes
    centroid_distance: bytes
    prompt_chars: bytes
    bucket: bytes
    control_embeddings: Annotated[
        FourierSum | None, Meta(description="Of the semantic rows of the control arm.")
    ] = None
    candidate_embeddings: FourierSum | None = None

    def __len__(self) -> int:
        return len(self.segment)

    def rows(self) -> Rows:
        """The columns as arrays.

        Raises:
            DecodeError: see :func:`pooled_rows`.
        """
        return pooled_rows([self])


def pooled_rows(batches: Sequence[MeasurementBatch]) -> Rows:
    """The rows of several batches, one after another, as arrays.

    Args:
        batches: at least one, all with the same segment names.

    Raises:
        DecodeError: a batch has columns of unequal length, a NaN, an infinity, a negative duration,
            a score outside [0, 1], flags that mean nothing, a segment without a name, a bucket that
            is none, or offsets that do not rise within their partition.
    """
    columns = [_columns(batch) for batch in batches]
    for batch, several in zip(batches, columns, strict=True):
        if tuple(map(len, several)) != _lengths(len(batch)):
            raise DecodeError(_unequal(batch))
    by_name = dict(zip(COLUMNS, zip(*columns, strict=True), strict=True))
    # Side by side, so that two reductions check all of them.
    floats = np.frombuffer(b"".join([x for name in _FLOATS for x in by_name[name]]), dtype="<f4")
    floats = floats.reshape(len(_FLOATS), -1)
    rows = Rows(
        **{
            name: np.frombuffer(b"".join(by_name[name]), dtype=dtype)
            for name, dtype in COLUMNS.items()
            if name not in _FLOATS
        },
        **dict(zip(_FLOATS, floats, strict=True)),
    )
    if len(rows):
        _check(rows, floats, batches)
    return rows


def _unequal(batch: MeasurementBatch) -> str:
    lengths = {}
    for (name, dtype), data in zip(COLUMNS.items(), _columns(batch), strict=True):
        if len(data) % dtype.itemsize:
            return f"column {name}: {len(data)} bytes is no multiple of {dtype.itemsize}"
        lengths[name] = len(data) // dtype.itemsize
    return f"columns of unequal length: {lengths}"


_columns: Callable[[MeasurementBatch], tuple[bytes, ...]] = attrgetter(*COLUMNS)


@lru_cache(maxsize=1024)
def _lengths(rows: int) -> tuple[int, ...]:
    """Bytes of each column."""
    return tuple(rows * dtype.itemsize for dtype in COLUMNS.values())


_FLOATS = {
    "processing_seconds": np.inf,
    "embed_seconds": np.inf,
    "rules_score": 1.0,
    "score": 1.0,
    "coherence": 1.0,
    "relevance": 1.0,
    "centroid_distance": 2.0,
}
"""Upper limit of each float column; the lower limit of all is 0."""


def _check(
    rows: Rows, floats: npt.NDArray[np.float32], batches: Sequence[MeasurementBatch]
) -> None:
    segments = len(batches[0].segments)
    lows, highs = floats.min(axis=1).tolist(), floats.max(axis=1).tolist()
    for (name, limit), low, high in zip(_FLOATS.items(), lows, highs, strict=True):
        # A NaN makes min and max NaN, and each comparison with NaN is false.
        if not (low >= 0.0 and high <= limit and high < np.inf):
            raise DecodeError(f"column {name}: values {low} to {high} outside [0, {limit}]")
    if int(rows.segment.max()) >= segments:
        raise DecodeError(f"column segment: {int(rows.segment.max())} of {segments} segment names")
    if int(rows.flags.max()) > _KNOWN_FLAGS:
        raise DecodeError(f"column flags: {int(rows.flags.max())} has bits that mean nothing")
    if int(rows.offset.min()) < 0 or int(rows.partition.min()) < 0:
        raise DecodeError("negative source partition or offset")
    if int(rows.prompt_chars.min()) < 0:
        raise DecodeError("negative prompt_chars")
    if bool(((rows.bucket >= BUCKETS) & (rows.bucket != NO_BUCKET)).any()):
        raise DecodeError(f"column bucket: neither below {BUCKETS} nor {NO_BUCKET}")
    _check_rising(rows.partition, rows.offset, [len(batch) for batch in batches])


def _check_rising(
    partition: npt.NDArray[np.int32], offset: npt.NDArray[np.int64], lengths: list[int]
) -> None:
    batch = np.repeat(np.arange(len(lengths)), lengths)
    if int(partition.max()) != int(partition.min()):
        # A stable sort, so that rows of other partitions may stand between two of the same.
        order = np.lexsort((partition, batch))
        partition, offset, batch = partition[order], offset[order], batch[order]
    falls = (offset[1:] <= offset[:-1]) & (partition[1:] == partition[:-1])
    if bool((falls & (batch[1:] == batch[:-1])).any()):
        raise DecodeError("source offsets do not rise within a partition")


class ModelState(StrEnum):
    """What a worker says of its model (M22)."""

    DISABLED = "disabled"
    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"


class SharedCacheState(StrEnum):
    """What a worker says of the cache that it shares with others."""

    OFF = "off"
    """None is configured, or the model is not loaded yet."""
    READY = "ready"
    READ_ONLY = "read_only"
    """It answers, and refuses to store: it is full, a replica, or the user may not write."""
    AWAY = "away"


class CacheLookups(msgspec.Struct, frozen=True, kw_only=True):
    """Of prompts' own vectors, in one arm; in shadow, of the candidate's (M18)."""

    hits: Annotated[int, Meta(ge=0)] = 0
    misses: Annotated[int, Meta(ge=0)] = 0


class SharedCache(msgspec.Struct, frozen=True, kw_only=True):
    """The level of the cache that workers share."""

    state: SharedCacheState = SharedCacheState.OFF
    hits: Annotated[int, Meta(ge=0, description="Texts found in it.")] = 0
    misses: Annotated[int, Meta(ge=0, description="Texts that it was asked for in vain.")] = 0
    errors: Annotated[int, Meta(ge=0, description="Calls that failed, and values of no use.")] = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="heartbeat"):
    """A worker's sign of life: also its acknowledgement of a rollout revision (M22, M23, M60)."""

    service: str
    worker_id: str
    incarnation: str
    version: str
    applied_revision: Annotated[int, Meta(ge=0)]
    interval_ms: Annotated[
        int, Meta(gt=0, description="When to expect the next one at the latest.")
    ]
    model: ModelState
    encoder: str
    rss_bytes: Annotated[int, Meta(ge=0)]
    cpu_seconds: Annotated[float, Meta(ge=0.0)]
    lag_messages: Annotated[int, Meta(ge=0)]
    cache_entries: Annotated[int, Meta(ge=0)]
    cache_hits: Annotated[int, Meta(ge=0, description="Texts, in any level and for any use.")]
    cache_misses: Annotated[int, Meta(ge=0)]
    cache_evictions: Annotated[int, Meta(ge=0, description="Given up to make room.")] = 0
    cache_control: CacheLookups = CacheLookups()
    cache_candidate: CacheLookups = CacheLookups()
    shared_cache: SharedCache = SharedCache()
    prompts: Annotated[int, Meta(ge=0, description="Handled since the start of the worker.")]
    leaving: Annotated[bool, Meta(description="The last one: an orderly stop.")] = False


class Command(StrEnum):
    """What an operator can ask for."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    RETRY = "retry"
    ACKNOWLEDGE = "acknowledge"


class OperatorCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command on `driftgate.commands` (JSON). Repeating one with the same id changes nothing."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    service: Annotated[str, Meta(min_length=1, max_length=100)]
    command: Command
    actor: Annotated[str, Meta(min_length=1, max_length=200, description="Who asks (M30).")]
    reason: Annotated[str, Meta(max_length=2000)] = ""
    green: Annotated[str | None, Meta(description="start: the deployment to roll out.")] = None
    full: Annotated[bool, Meta(description="promote: to the last stage at once.")] = False
    policy: Annotated[
        Policy | None, Meta(description="start: the policy; the monitor's own when absent.")
    ] = None
    alert_key: Annotated[
        Annotated[str, Meta(max_length=500)] | None,
        Meta(description="acknowledge: the key of the alert."),
    ] = None
    preflight: Annotated[
        list[PreflightResult],
        Meta(max_length=20, description="start: what was looked at before, and what was found."),
    ] = []
    rehearsal: Annotated[
        bool, Meta(description="start: only to be taken back; it never leaves its shadow stage.")
    ] = False


class CommandRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="operator_command"
):
    """A checked command, forwarded into the log by the monitor."""

    service: str
    command: OperatorCommand


class CommandUnreadable(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="command_unreadable"
):
    """A record of `driftgate.commands` that is no command: whoever sent it must hear of that."""

    service: Annotated[str, Meta(description="The record's key, cut at 100 characters.")]
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    reason: Annotated[str, Meta(max_length=2000)]


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="tick"):
    """Written by the owner of an idle log, so that silence is in the log too."""

    service: str


LogRecord = MeasurementBatch | FeedbackBatch | Heartbeat | CommandRecord | CommandUnreadable | Tick

_decoder: msgspec.msgpack.Decoder[LogRecord] = msgspec.msgpack.Decoder(LogRecord)
_encoder = msgspec.msgpack.Encoder()


def decode_log_record(value: bytes | None) -> LogRecord:
    """A record's value as its type.

    Raises:
        DecodeError: no value, or bytes that are no record of the log.
    """
    if value is None:
        raise DecodeError("a record of the log without a value")
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a record of the log: {error}") from error


def encode_log_record(record: LogRecord) -> bytes:
    """The msgpack value of a record."""
    return _encoder.encode(record)
