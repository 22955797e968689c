"""What the console tells Prometheus of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from streams.console.process import Console

__all__ = ["ConsoleCollector"]


class ConsoleCollector(Collector):
    """Of a console; it is told which one when that is made."""

    def __init__(self) -> None:
        self.console: Console | None = None

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        if self.console is None:
            return
        state = self.console.feed.state
        yield CounterMetricFamily("driftgate_console_records", "Records read.", value=state.records)
        yield CounterMetricFamily(
            "driftgate_console_undecodable_records", "Passed over.", value=state.undecodable
        )
        for name, text, value in (
            ("lag_records", "Records that are still to be read.", state.lag),
            ("broker_up", "1 while the broker answers.", state.link != "away"),
            ("history_up", "1 while what is read can be kept.", not state.history_problem),
            ("pages", "Pages that are open.", self.console.hub.pages),
        ):
            yield GaugeMetricFamily(f"driftgate_console_{name}", text, value=float(value))
        yield CounterMetricFamily(
            "driftgate_console_sign_in_failures",
            "Wrong tokens.",
            value=self.console.gatekeeper.failures,
        )
        commands = CounterMetricFamily(
            "driftgate_console_commands", "Given on the page.", labels=["command", "outcome"]
        )
        for key, count in sorted(self.console.counts.commands.items()):
            commands.add_metric(key, count)
        yield commands
