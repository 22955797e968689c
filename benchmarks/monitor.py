"""Measured prompts a second through the monitor on a real Kafka broker, beside its peers.

    python -m benchmarks.monitor --json
    python -m benchmarks.monitor --rows 1000000 --repeats 3 --systems driftgate bytewax

Every system computes the same windows (10 s, hopping by 1 s) by arm: count, mean, error rate and
p95 of the processing time. Each runs as a process of its own on one core, the broker on another,
over a topic of one partition that was filled before. It is timed from a quarter of the rows on, so
that connecting and compiling are left out. The final results are compared with exact ones: counts
must be equal, means and error rates to 1e-9 (floats are added up in another order), p95 to what a
system's histogram promises (ours 2 %; the peers' 9 %, as theirs is smaller, in their favour).

* `driftgate`, `driftgate_300`: our monitor as it is, with a rollout at 50 % under the default
  gates; records of the log have 100 and 300 rows. It also de-duplicates, tests all gates, reports
  them and every provisional window once a pane, and writes a checkpoint a second. Drift is not
  watched, as by no peer; `benchmarks.fold` measures what it costs.
* `driftgate_windows`, `driftgate_windows_300`: the same under one gate, the least that a policy may
  have: about what the peers do.
* `faust`, `quix_streams`, `bytewax`: hopping windows as their manuals have them, one JSON record a
  prompt.
* `kafka_streams`: the same in Java. `kafka_streams_panes`: panes of 1 s that are merged when they
  close. `kafka_streams_batched`, `kafka_streams_batched_300`: these panes over our own log records,
  which tells what the design and what the code is worth.

Time is event time: each record carries its own as Kafka's time stamp. Our monitor's clock is that
of its log, whose topic must have the broker's time stamps. So the log is filled while its topic
still takes the times that it is given, and then set to what the monitor insists on, which counts
for later records only: the monitor finds its topics in order and in the log a past whose times are
known, so that every single window can be compared. A slower system gets fewer rows in the same 20 s
of log time, not fewer windows.

`rows_per_s` and `rss_mb` are medians over the repeats, which go round all systems, with the least
and the most in `rows_per_s_range`; `rows_per_cpu_s` is by the CPU time of the process, which a busy
machine changes less. A ratio compares medians at 100 rows a record, `ratios_300` at 300;
`windows_ratio...` is of `driftgate_windows`, the others are of `driftgate`. What cannot run here is
in `left_out`, with the cure. Exit code 1 says that results were wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.monitor_kafka import BATCH_BYTES, create, fill
from benchmarks.monitor_peers import PEERS, NotHereError, Peer
from benchmarks.monitor_process import BROKER, CORES, on_core
from benchmarks.monitor_results import WindowResult, ratios, reference
from benchmarks.monitor_rows import Load, begin_ms, json_records, log_records, make_load, rows
from benchmarks.monitor_runs import LOG_BATCH_BYTES, Run, run_monitor, run_peer
from driftgate.broker import EmbeddedKafka

__all__ = ["main"]

_OURS = {
    "driftgate": (100, True),
    "driftgate_300": (300, True),
    "driftgate_windows": (100, False),
    "driftgate_windows_300": (300, False),
}
"""Rows a record, and whether all gates are on."""
_JSON_BATCH = 100
"""Rows with the same time: as many as in a record of our log."""
_PYTHON = ("faust", "quix_streams", "bytewax")


def main() -> None:
    """Run it and print a table, or one line of JSON."""
    names = [*_OURS, *(peer.name for peer in PEERS)]
    parser = argparse.ArgumentParser(description="The monitor on Kafka, beside its peers.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rows", type=int, default=9_000_000, help="for our monitor")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--systems", nargs="+", choices=names, default=names, metavar="NAME")
    asked = parser.parse_args()
    with on_core(BROKER), EmbeddedKafka() as kafka:
        bench = _Bench(kafka.bootstrap_servers, asked.rows)
        asyncio.run(bench.measure(asked.systems, asked.repeats))
    found = bench.summary() | {"repeats": asked.repeats}
    if not asked.json:
        for name, value in found.items():
            print(f"{name:<32} {value}", file=sys.stderr)
    print(json.dumps(found))
    sys.exit(any(bench.wrong.values()))


class _Bench:
    """All measurements on one broker."""

    def __init__(self, servers: str, rows: int) -> None:
        self._servers = servers
        self._rows = rows
        self._begin_ms = begin_ms(round(time.time() * 1000))
        self._loads: dict[tuple[int, int], tuple[Load, list[WindowResult]]] = {}
        self._topics: set[str] = set()
        self._runs: dict[str, list[Run]] = {}
        self._left_out: dict[str, str] = {}
        self.wrong: dict[str, list[str]] = {}

    async def measure(self, systems: Sequence[str], repeats: int) -> None:
        """Go round the systems, as often as asked for."""
        peers = {peer.name: peer for peer in PEERS}
        for name in systems:
            try:
                if name in peers:
                    peers[name].command()
            except NotHereError as error:
                self._left_out[name] = str(error)
        wanted = [name for name in systems if name not in self._left_out]
        for repeat in range(repeats):
            for name in wanted:
                run = await (self._peer(peers[name]) if name in peers else self._ours(name))
                self._runs.setdefault(name, []).append(run)
                self.wrong.setdefault(name, []).extend(run.wrong)
                right = f"{len(run.wrong)} results are wrong" if run.wrong else "results are right"
                _say(f"{repeat + 1}/{repeats} {name}: {run.rows_per_s:,.0f} rows/s, {right}")

    def summary(self) -> dict[str, Any]:
        """What was found."""
        rates = {name: [run.rows_per_s for run in runs] for name, runs in self._runs.items()}
        at_300 = {name.removesuffix("_300"): rate for name, rate in rates.items()}
        return {
            "machine": describe_machine(),
            "pinned": len(CORES) > 1,
            "rows_per_s": {name: round(median(several)) for name, several in rates.items()},
            "rows_per_s_range": {
                name: [round(min(several)), round(max(several))] for name, several in rates.items()
            },
            "rows_per_cpu_s": self._medians("rows_per_cpu_s"),
            "rss_mb": self._medians("rss_mb"),
            **ratios(rates, python_peers=_PYTHON),
            "ratios_300": ratios(at_300, python_peers=_PYTHON),
            "equal": {name: not wrong for name, wrong in self.wrong.items()},
            "wrong": {name: wrong[:5] for name, wrong in self.wrong.items() if wrong},
            "left_out": self._left_out,
        }

    def _medians(self, field: str) -> dict[str, int]:
        return {
            name: round(median(getattr(run, field) for run in runs))
            for name, runs in self._runs.items()
        }

    async def _ours(self, name: str) -> Run:
        size, gates = _OURS[name]
        load, expected = self._load(self._rows, size)
        return await run_monitor(self._servers, load, expected, gates=gates)

    async def _peer(self, peer: Peer) -> Run:
        wanted = round(self._rows * peer.share)
        batched = peer.batch > 1
        load, expected = self._load(wanted, peer.batch if batched else _JSON_BATCH)
        topic = f"{'log' if batched else 'json'}-{load.count}-{load.size}"
        if topic not in self._topics:
            self._topics.add(topic)
            await create(self._servers, topic)
            records = log_records(load) if batched else json_records(load)
            size = LOG_BATCH_BYTES if batched else BATCH_BYTES
            await fill(self._servers, topic, records, batch_bytes=size)
        return await run_peer(self._servers, peer, topic, load, expected)

    def _load(self, wanted: int, size: int) -> tuple[Load, list[WindowResult]]:
        load = make_load(wanted, size, self._begin_ms)
        key = (load.count, load.size)
        if key not in self._loads:
            _say(f"making {load.rows:,} rows, {size} at a time")
            self._loads[key] = load, reference(rows(load))
        return self._loads[key]


def _say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
