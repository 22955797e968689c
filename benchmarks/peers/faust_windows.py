"""The windowed metrics in a plain Faust table with hopping windows.

Faust never says that a window has ended (its `on_window_close` is called without what was summed
up), so the agent reads the windows that ended when it sees the first row of a new hop.
"""

from __future__ import annotations

from typing import Any

import faust
from totals import HOP_MS, WINDOW_MS, Arguments, Progress, add, new, result

asked = Arguments.read()
progress = Progress(asked.rows)
app = faust.App(
    asked.group,
    broker=f"kafka://{asked.servers}",
    store="memory://",
    topic_partitions=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
rows = app.topic(asked.input, key_type=str, key_serializer="raw", value_serializer="json")
results = app.topic(asked.output, key_type=str, key_serializer="raw", value_serializer="json")
windows = app.Table("windows", default=new, partitions=1).hopping(
    WINDOW_MS / 1000, HOP_MS / 1000, expires=3600
)
ended_ms: dict[str, int] = {}
"""Up to where the windows of each arm were reported."""


@app.agent(rows)
async def measure(stream: faust.StreamT[dict[str, Any]]) -> None:
    """Add each row to the ten windows of its arm that it is in."""
    async for event in stream.events():
        arm = event.value["arm"]
        now_ms = round(event.message.timestamp * 1000)
        hop_ms = now_ms // HOP_MS * HOP_MS
        last_ms = ended_ms.setdefault(arm, hop_ms)
        if hop_ms > last_ms:
            await report(arm, last_ms, hop_ms, now_ms)
            ended_ms[arm] = hop_ms
        windows[arm].apply(add, event.value)
        progress.add()


async def report(arm: str, last_ms: int, hop_ms: int, now_ms: int) -> None:
    """Send what ended after `last_ms`, up to `hop_ms`; beyond a whole window there is nothing."""
    for end_ms in range(last_ms + HOP_MS, min(hop_ms, last_ms + WINDOW_MS) + 1, HOP_MS):
        start_ms = end_ms - WINDOW_MS
        totals = windows[arm].delta((now_ms - start_ms) / 1000)
        if totals["count"]:
            await results.send(key=arm, value=result(totals, start_ms, arm))


if __name__ == "__main__":
    # Standard output is for the progress, and a warning each few rows (a buffer of 100 sends is
    # full) would slow it down.
    worker = faust.Worker(app, loglevel="ERROR", redirect_stdouts=False)
    worker.execute_from_commandline()
