"""The tracker: brings what the topics say into MLflow, and waits for it when it is away.

Two consumer groups in one process. *Runs* takes control events and metrics; *traces* takes results,
rejections, feedback and curated cases, of which there may be a backlog that the runs must not wait
for. MLflow is called in one thread, one call at a time, so that SQLite has one writer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from schemas.topics import Topic, Topics
from streams.settings import TrackerSettings
from streams.tracking.kafka_lane import Handler, Lane
from streams.tracking.mlflow_caller import RETRY_SECONDS, Caller, StoppedError
from streams.tracking.mlflow_sink import MlflowSink
from streams.tracking.recent import RecentEvents
from streams.tracking.records import Record
from streams.tracking.take_runs import RunTaker
from streams.tracking.take_traces import TraceTaker
from streams.tracking.telemetry import TrackerTelemetry
from streams.tracking.traces import Tracing

__all__ = ["Tracker"]

log = logging.getLogger("driftgate.tracker")

DRAIN_SECONDS = 10.0
"""What a stop allows for what is under way: some times what a write takes. A supervisor kills what
takes much longer. What MLflow or Kafka has not taken by then is read again by the next start."""


class Tracker:
    """Everything that goes to MLflow.

    Args:
        settings: of the process.
        cluster_id: Kafka's.
        retry_seconds: pauses while MLflow is away.
    """

    def __init__(
        self,
        settings: TrackerSettings,
        cluster_id: str,
        *,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self._settings = settings
        self.telemetry = TrackerTelemetry(settings.trace_ratio)
        self._stopping = asyncio.Event()
        self._sink = MlflowSink(settings)
        self._calls = Caller(self._sink.probe, self.telemetry, self._stopping, retry_seconds)
        topics = Topics(settings.kafka.topic_prefix)
        self._runs = RunTaker(topics, self._sink, self._calls, self.telemetry)
        self._traces = TraceTaker(
            topics,
            Tracing(cluster_id, settings.trace_ratio),
            cluster_id,
            self._sink,
            self._calls,
            self.telemetry,
            RecentEvents(),
        )

    @property
    def ready(self) -> bool:
        """Whether it has connected to MLflow and joined its groups; also while it stands by."""
        return len(self.telemetry.joined) == 2

    def stop(self) -> None:
        """End after the call of MLflow that is under way, or without it if it hangs."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            aiokafka.errors.KafkaError: the broker cannot be reached at the start; in a group.
        """
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        await asyncio.wait({work}, timeout=DRAIN_SECONDS)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        log.info("stopped; what MLflow has not taken is read again by the next start")

    async def _work(self) -> None:
        settings = self._settings
        log.info("connecting to %s; a new database takes some seconds", settings.shown_uri)
        try:
            experiment_id = await self._calls.call("its first call", self._sink.connect)
        except StoppedError:
            return
        log.info(
            "experiment %r (%s); %g of all traces, and all of errors, fallbacks, cases and what "
            "is spoken of",
            settings.experiment, experiment_id, settings.trace_ratio,
        )  # fmt: skip
        lanes = (
            self._lane("runs", (Topic.CONTROL,), (Topic.METRICS,), self._runs.take),
            self._lane(
                "traces",
                (Topic.ENRICHED, Topic.REJECTED),
                (Topic.FEEDBACK, Topic.CURATED),
                self._traces.take,
            ),
        )
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run())

    def _lane(
        self,
        name: str,
        first: Sequence[Topic],
        then: Sequence[Topic],
        take: Callable[[Sequence[Record]], Awaitable[None]],
    ) -> Lane:
        handle = _until_stopped(take)
        return Lane(self._settings.kafka, name, first, then, handle, self._stopping, self.telemetry)


def _until_stopped(take: Callable[[Sequence[Record]], Awaitable[None]]) -> Handler:
    async def handle(records: Sequence[Record]) -> bool:
        try:
            await take(records)
        except StoppedError:
            return False
        return True

    return handle
