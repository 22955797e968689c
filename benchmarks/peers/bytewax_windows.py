"""The windowed metrics in Bytewax: sliding windows of event time, without a recovery store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import cluster_main
from confluent_kafka import OFFSET_BEGINNING
from totals import HOP_MS, WINDOW_MS, Arguments, Progress, add, merge, new, result

asked = Arguments.read()
progress = Progress(asked.rows)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WINDOW, HOP = timedelta(milliseconds=WINDOW_MS), timedelta(milliseconds=HOP_MS)

Row = tuple[datetime, dict[str, Any]]


def read(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, Row]:
    """Arm, event time and row of a record."""
    progress.add()
    row = json.loads(message.value)
    return row["arm"], (datetime.fromtimestamp(message.timestamp[1] / 1000, UTC), row)


def write(item: tuple[str, tuple[int, dict[str, Any]]]) -> KafkaSinkMessage[bytes, bytes]:
    """The result of a window that has ended."""
    arm, (number, totals) = item
    value = json.dumps(result(totals, number * HOP_MS, arm)).encode()
    return KafkaSinkMessage(arm.encode(), value)


flow = Dataflow("windows")
source = kafka.input(
    "rows",
    flow,
    brokers=[asked.servers],
    topics=[asked.input],
    starting_offset=OFFSET_BEGINNING,
)
keyed = op.map("read", source.oks, read)
windows = windowing.fold_window(
    "windows",
    keyed,
    # Time is that of the rows alone: Bytewax would let it run on with the clock, and rows that are
    # worked off more slowly than they were written would be late.
    windowing.EventClock(lambda row: row[0], timedelta(0), now_getter=lambda: EPOCH),
    windowing.SlidingWindower(
        timedelta(milliseconds=WINDOW_MS), timedelta(milliseconds=HOP_MS), EPOCH
    ),
    new,
    lambda totals, row: add(totals, row[1]),
    merge,
)
written = op.map("write", windows.down, write)
kafka.output("results", written, brokers=[asked.servers], topic=asked.output)

if __name__ == "__main__":
    cluster_main(flow, [], 0)
