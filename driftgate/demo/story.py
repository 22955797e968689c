"""The story: healthy stages, a regression, the rollback, and the count of what was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from driftgate.broker import Broker
from driftgate.commanding import command, new_command
from driftgate.demo.audit import Audit, audit
from driftgate.demo.cast import SERVICE, Cast
from driftgate.demo.traffic import RATE_PER_S, submit, tell
from driftgate.demo.view import View
from driftgate.errors import DriftgateError
from driftgate.mlflow_server import RunPage, find_run, free_port, mlflow_server
from driftgate.reading import TopicReader, decode_control, decode_metrics, read_all
from driftgate.settings import tracker_settings
from schemas.control import (
    AlertEvent,
    ControlEvent,
    GateStatus,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutPaused,
    RolloutRolledBack,
)
from schemas.log import Command, Heartbeat, ModelState, decode_log_record
from schemas.policy import parse_policy
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["Ending", "Outcome", "Story"]

REGRESSION = {"deployment": "semantic", "error_rate": 0.5}
"""Half of green's batches fail: their prompts are served by the rules, so users see nothing."""
HEALTHY_SECONDS_AT_HALF = 4.0
"""How long green serves half of the users before the regression."""
STORY_TIMEOUT_S = 110.0
DRAIN_TIMEOUT_S = 20.0
TRACKED_TIMEOUT_S = 90.0
"""For the tracker to bring the end of the rollout into MLflow."""


class Outcome(msgspec.Struct, frozen=True):
    """The demo's last line."""

    rolled_back: bool
    gate: str
    reason: str
    reaction_ms: int
    """From the start of the regression to the rollback event on the control topic."""
    confirmed_ms: int
    """From the rollback to the last worker's acknowledgement, in log time."""
    prompts: int
    enriched: int
    rejected: int
    lost: int
    duplicated: int
    broker: str
    console: str
    """Its address."""
    mlflow_uri: str
    mlflow_run: str
    """Id of the rollout's run; empty when the tracker did not finish it in time."""


class Ending(NamedTuple):
    """The outcome, and where to look further while the processes are there."""

    outcome: Outcome
    token: str
    """Of an operator, for the console."""
    mlflow_page: str
    """Of the rollout's run."""


class Story:
    """One run of the demo.

    Args:
        broker: where.
        kafka: its settings, with a topic prefix of the demo's own where the broker is shared.
        folder: for logs and the fault file.
        environ: of the child processes.
        view: where to tell it.
    """

    def __init__(
        self,
        broker: Broker,
        kafka: KafkaSettings,
        folder: Path,
        environ: Mapping[str, str],
        view: View,
    ) -> None:
        self._broker = broker
        self._kafka = kafka
        self._folder = folder
        self._view = view
        self._cast = Cast(kafka, folder, environ)
        self._half_since: float | None = None
        self._regression_ms = 0
        self._rolled_back: RolloutRolledBack | None = None
        self._rolled_back_ms = 0
        self._confirmed: RollbackConfirmed | None = None

    async def run(self, told: Callable[[Ending], None], *, keep: bool) -> None:
        """Tell the story from beginning to end.

        Args:
            told: gets the end while all processes are still there.
            keep: go on with healthy prompts after it, until cancelled.

        Raises:
            DriftgateError: a process died, or the story did not end in time; says why.
        """
        with self._cast as cast:
            self._view.say("two analyzers, monitor, curator, tracker and console start")
            await cast.start()
            await asyncio.to_thread(
                cast.wait_until_ready, lambda n: self._view.say(f"{n} is ready")
            )
            await self._introduce_workers()
            self._view.say(f"console: {cast.console_url}")
            await self._with_traffic(self._told_in_time())
            counted = await self._drain()
            self._view.say("waiting for MLflow to have all of it")
            settings = tracker_settings(cast.environ, self._kafka)
            port = free_port()
            # In a thread: its start takes seconds.
            server = mlflow_server(settings.uri, port, cast.environ)
            await asyncio.to_thread(server.__enter__)
            try:
                page = await self._tracked(f"http://127.0.0.1:{port}", settings.experiment)
                outcome = self._outcome(counted, settings.uri, page)
                told(Ending(outcome, cast.token, page.url if page else ""))
                if keep:
                    await self._with_traffic(self._stay())
            finally:
                await asyncio.to_thread(server.__exit__, None, None, None)

    async def _with_traffic(self, story: Coroutine[Any, Any, None]) -> None:
        """Run a part while prompts and feedback come."""
        traffic = [asyncio.create_task(each(self._kafka)) for each in (submit, tell)]
        part = asyncio.create_task(story)
        try:
            await asyncio.wait({part, *traffic}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*traffic, part):
                if task.done():
                    task.result()
        finally:
            for task in (part, *traffic):
                task.cancel()
            await asyncio.gather(part, *traffic, return_exceptions=True)

    async def _introduce_workers(self) -> None:
        beats: dict[str, Heartbeat] = {}
        for record in await read_all(self._kafka, Topic.LOG, committed_only=False):
            beat = decode_log_record(record.value)
            if isinstance(beat, Heartbeat) and beat.model is ModelState.READY:
                beats[beat.worker_id] = beat
        for name, beat in sorted(beats.items()):
            mib = beat.rss_bytes / 2**20
            self._view.say(f"{name} has its model: {beat.encoder}, {mib:.0f} MiB")

    async def _told_in_time(self) -> None:
        try:
            async with asyncio.timeout(STORY_TIMEOUT_S):
                await self._watch()
        except TimeoutError as error:
            raise DriftgateError(
                f"the story did not end within {STORY_TIMEOUT_S:g} s; logs: {self._folder}"
            ) from error

    async def _watch(self) -> None:
        """Start the rollout and follow it to the confirmed rollback."""
        async with TopicReader(self._kafka, Topic.CONTROL, Topic.METRICS, Topic.ALERTS) as reader:
            await self._start_rollout()
            while self._confirmed is None:
                self._cast.check()
                for record in await reader.poll(0.2):
                    if record.topic == self._kafka.topic(Topic.CONTROL):
                        self._take(decode_control(record), record.timestamp)
                    elif record.topic == self._kafka.topic(Topic.ALERTS):
                        alert = msgspec.json.decode(record.value, type=AlertEvent)
                        self._view.say(f"ALERT {alert.status}: {alert.summary}")
                    else:
                        self._show(record)
                self._inject_when_due()
        self._cast.faults.unlink()

    async def _stay(self) -> None:
        """Keep everything open, for people to look around."""
        while True:
            self._cast.check()
            await asyncio.sleep(1.0)

    async def _tracked(self, server: str, experiment: str) -> RunPage | None:
        """The page of the rollout's run, once it has ended there too."""
        assert self._rolled_back is not None  # the story ends with it
        rollout_id = self._rolled_back.rollout_id or ""
        deadline = time.monotonic() + TRACKED_TIMEOUT_S
        while True:
            self._cast.check()
            page = await asyncio.to_thread(find_run, server, experiment, rollout_id)
            if page is not None and page.ended:
                return page
            if time.monotonic() > deadline:
                self._view.say(f"MLflow has no end of the rollout; logs: {self._folder}")
                return None
            await asyncio.sleep(0.5)

    async def _start_rollout(self) -> None:
        policy_text = resources.files("driftgate.demo").joinpath("policy.yaml").read_text("utf-8")
        policy = parse_policy(policy_text, file="driftgate/demo/policy.yaml")
        asked = new_command(
            Command.START, SERVICE, actor="demo", reason="the demo begins", policy=policy
        )
        self._view.say(f"{RATE_PER_S:g} prompts a second; rollout of {policy.green} is asked for")
        await command(self._kafka, asked, timeout_s=20.0)

    def _take(self, event: ControlEvent, at_ms: int) -> None:
        self._view.event(event)
        if isinstance(event, RolloutAdvanced) and event.share == 0.5:
            self._half_since = time.monotonic()
        elif isinstance(event, RolloutPaused):
            raise DriftgateError(f"the rollout paused, which the story does not foresee: "
                                 f"{event.reason}; logs: {self._folder}")  # fmt: skip
        elif isinstance(event, RolloutRolledBack):
            if not self._regression_ms:
                raise DriftgateError(
                    f"rolled back before the regression: {event.reason}; logs: {self._folder}"
                )
            self._rolled_back, self._rolled_back_ms = event, at_ms
        elif isinstance(event, RollbackConfirmed):
            self._confirmed = event

    def _show(self, record: Any) -> None:
        metrics = decode_metrics(record)
        if isinstance(metrics, GateStatus):
            self._view.gates(metrics)
        elif metrics.segment == "all":
            self._view.window(metrics)

    def _inject_when_due(self) -> None:
        since = self._half_since
        if self._regression_ms or since is None:
            return
        if time.monotonic() - since < HEALTHY_SECONDS_AT_HALF:
            return
        faults = self._cast.faults
        written = faults.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(REGRESSION))
        written.rename(faults)
        self._regression_ms = time.time_ns() // 1_000_000
        self._view.say("REGRESSION: from now on half of green's batches fail")

    async def _drain(self) -> Audit:
        """Count until every prompt has its result, for as long as is sensible."""
        self._view.say("all workers are back on blue; reading the topics back")
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while True:
            counted = await audit(self._kafka)
            if counted.lost == 0 or time.monotonic() > deadline:
                return counted
            await asyncio.sleep(0.5)

    def _outcome(self, counted: Audit, mlflow_uri: str, page: RunPage | None) -> Outcome:
        rolled_back, confirmed = self._rolled_back, self._confirmed
        gate = rolled_back.gate if rolled_back else None
        return Outcome(
            rolled_back=rolled_back is not None and confirmed is not None,
            gate=gate.gate if gate else "",
            reason=rolled_back.reason if rolled_back else "",
            reaction_ms=self._rolled_back_ms - self._regression_ms,
            confirmed_ms=confirmed.confirmed_ms if confirmed else -1,
            prompts=counted.prompts,
            enriched=counted.enriched,
            rejected=counted.rejected,
            lost=counted.lost,
            duplicated=counted.duplicated,
            broker=self._broker.version,
            console=self._cast.console_url,
            mlflow_uri=mlflow_uri,
            mlflow_run=page.run_id if page else "",
        )
