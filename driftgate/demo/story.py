"""The story: healthy stages, a regression, the rollback, and the count of what was lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from driftgate.broker import Broker
from driftgate.commanding import command, new_command
from driftgate.demo.audit import Audit, audit
from driftgate.demo.view import View
from driftgate.errors import DriftgateError
from driftgate.processes import Role
from driftgate.producing import read_prompts, repeated
from driftgate.reading import TopicReader, decode_control, decode_metrics
from driftgate.topics import ensure_topics
from schemas.control import (
    ControlEvent,
    GateStatus,
    RollbackConfirmed,
    RolloutAdvanced,
    RolloutPaused,
    RolloutRolledBack,
)
from schemas.log import Command, Heartbeat, ModelState, decode_log_record
from schemas.policy import parse_policy
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["Outcome", "Story"]

SERVICE = "demo"
WORKERS = ("analyzer-1", "analyzer-2")
RATE_PER_S = 100.0
REGRESSION = {"deployment": "semantic", "error_rate": 0.5}
"""Half of green's batches fail: their prompts are served by the rules, so users see nothing."""
HEALTHY_SECONDS_AT_HALF = 4.0
"""How long green serves half of the users before the regression."""
STORY_TIMEOUT_S = 110.0
DRAIN_TIMEOUT_S = 20.0
_BAD_PROMPTS = (b"not json", b'{"prompt": "   "}', b'{"text": "no prompt"}', b'{"prompt": "\xff"}')
_EVERY_BAD = 60
"""Among so many good prompts there is a bad one."""


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
        self._faults = folder / "faults.json"
        self._view = view
        self._environ = {
            **environ,
            "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DRIFTGATE_TOPIC_PREFIX": kafka.topic_prefix,
            "DRIFTGATE_SERVICE": SERVICE,
            "DRIFTGATE_FAULTS_FILE": str(self._faults),
        }
        self._roles: list[Role] = []
        self._half_since: float | None = None
        self._regression_ms = 0
        self._rolled_back: RolloutRolledBack | None = None
        self._rolled_back_ms = 0
        self._confirmed: RollbackConfirmed | None = None

    async def run(self) -> Outcome:
        """Tell the story from beginning to end.

        Raises:
            DriftgateError: a process died, or the story did not end in time; says why.
        """
        await ensure_topics(self._kafka)
        with ExitStack() as stack:
            for name in WORKERS:
                self._start(stack, name, ["analyzer", "--worker-id", name])
            self._start(stack, "monitor", ["monitor", "--monitor-id", "demo-monitor"])
            await self._wait_for_workers()
            producing = asyncio.create_task(self._produce())
            try:
                async with asyncio.timeout(STORY_TIMEOUT_S):
                    await self._watch(producing)
            except TimeoutError as error:
                raise DriftgateError(
                    f"the story did not end within {STORY_TIMEOUT_S:g} s; logs: {self._folder}"
                ) from error
            finally:
                producing.cancel()
                await asyncio.gather(producing, return_exceptions=True)
            counted = await self._drain()
        return self._outcome(counted)

    def _start(self, stack: ExitStack, name: str, arguments: list[str]) -> None:
        role = Role(name, arguments, self._environ, self._folder / f"{name}.log")
        self._roles.append(stack.enter_context(role))

    def _check_roles(self) -> None:
        for role in self._roles:
            ended = role.ended()
            if ended:
                raise DriftgateError(ended)

    async def _wait_for_workers(self) -> None:
        self._view.say(f"{len(WORKERS)} analyzers and the monitor start; the model is loading")
        ready: set[str] = set()
        async with TopicReader(self._kafka, Topic.LOG) as log:
            deadline = time.monotonic() + STORY_TIMEOUT_S
            while len(ready) < len(WORKERS):
                self._check_roles()
                if time.monotonic() > deadline:
                    raise DriftgateError(f"the workers did not get ready; logs: {self._folder}")
                for record in await log.poll(0.5):
                    beat = decode_log_record(record.value)
                    if isinstance(beat, Heartbeat) and beat.model is ModelState.READY:
                        if beat.worker_id not in ready:
                            mib = beat.rss_bytes / 2**20
                            self._view.say(
                                f"{beat.worker_id} is ready: {beat.encoder}, {mib:.0f} MiB"
                            )
                        ready.add(beat.worker_id)

    async def _produce(self) -> None:
        """Publish prompts at a steady rate, with bad ones among them, until cancelled."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
        )
        await producer.start()
        topic = self._kafka.topic(Topic.PROMPTS)
        try:
            started = time.monotonic()
            for number, (key, value) in enumerate(_records(_sample())):
                await asyncio.sleep(max(started + number / RATE_PER_S - time.monotonic(), 0))
                await producer.send(topic, key=key, value=value)
        finally:
            # Flushes: what was sent is on the topic before anybody counts.
            await producer.stop()

    async def _watch(self, producing: asyncio.Task[None]) -> None:
        """Start the rollout and follow it to the confirmed rollback."""
        async with TopicReader(self._kafka, Topic.CONTROL, Topic.METRICS) as reader:
            await self._start_rollout()
            while self._confirmed is None:
                self._check_roles()
                if producing.done():
                    producing.result()
                for record in await reader.poll(0.2):
                    if record.topic == self._kafka.topic(Topic.CONTROL):
                        self._take(decode_control(record), record.timestamp)
                    else:
                        self._show(record)
                self._inject_when_due()

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
        written = self._faults.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(REGRESSION))
        written.rename(self._faults)
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

    def _outcome(self, counted: Audit) -> Outcome:
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
        )


def _sample() -> list[PromptSubmitted]:
    with resources.as_file(resources.files("driftgate").joinpath("demo_prompts.jsonl")) as path:
        return [row for row in read_prompts(path) if isinstance(row, PromptSubmitted)]


def _records(prompts: list[PromptSubmitted]) -> Iterator[tuple[bytes | None, bytes]]:
    bad = itertools.cycle(_BAD_PROMPTS)
    for number, prompt in enumerate(repeated(prompts, None), 1):
        # By user: a user's prompts meet the same worker, and its cache, each time.
        yield (prompt.user_id or "").encode() or None, msgspec.json.encode(prompt)
        if number % _EVERY_BAD == 0:
            yield None, next(bad)
