"""The windowed metrics in Quix Streams: hopping windows, final results."""

from __future__ import annotations

from typing import Any

from quixstreams import Application
from totals import HOP_MS, WINDOW_MS, Arguments, Progress, add, new, result

asked = Arguments.read()
progress = Progress(asked.rows)
app = Application(
    broker_address=asked.servers,
    consumer_group=asked.group,
    auto_offset_reset="earliest",
    loglevel="WARNING",
)
rows = app.topic(asked.input, key_deserializer="str", value_deserializer="json")
results = app.topic(asked.output, key_serializer="str", value_serializer="json")


def finished(window: dict[str, Any], arm: str, _timestamp: int, _headers: object) -> dict[str, Any]:
    """The result of a window that has ended."""
    return result(window["value"], window["start"], arm)


def main() -> None:
    """Run until it is ended."""
    measured = app.dataframe(rows).update(lambda _row: progress.add())
    windows = measured.hopping_window(duration_ms=WINDOW_MS, step_ms=HOP_MS)
    final = windows.reduce(reducer=add, initializer=lambda row: add(new(), row)).final()
    final.apply(finished, metadata=True).to_topic(results)
    app.run()


if __name__ == "__main__":
    main()
