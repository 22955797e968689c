"""Faust's Kafka transport, told how long a fetch may wait and how much it may bring.

aiokafka has one fetch at a time under way to each broker. Faust has it wait for 1.5 s where nothing
new is there, which no setting of Faust's changes. While records of the log wait in the client for
more than 0.1 s, because the fold is busy, the next fetch is for the other partitions alone: mostly
the commands, in which nothing happens. The log is then not fetched until that has waited in vain:
with a backlog the monitor stood still for most of the time.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver

__all__ = ["FETCH_MAX_BYTES", "FETCH_MAX_WAIT_MS", "Transport"]

FETCH_MAX_WAIT_MS = 50
"""Less is more requests of an idle monitor (20 a second now), more is a longer stop. What one fetch
brings must last longer than this."""
FETCH_MAX_BYTES = 4 * 2**20
"""Of a partition. At 100 rows a record that is 800 records, 0.15 s for a fold that takes 500,000
rows a second; more is memory, of each partition."""


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc] # an untyped class
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # It is read when the consumer starts.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001
        return consumer


class _Consumer(driver.Consumer):  # type: ignore[misc] # an untyped class
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):  # type: ignore[misc] # an untyped class
    """For `faust.App.transport`."""

    Consumer = _Consumer
