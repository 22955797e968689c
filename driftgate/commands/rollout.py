"""`driftgate rollout ...`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from driftgate.commanding import command, confirmed, default_actor, new_command
from driftgate.commands.control import event_line
from driftgate.commands.options import Bootstrap, JsonFlag, PolicyFile, Service
from driftgate.commands.replay import explain
from driftgate.commands.rollout_status import status
from driftgate.console_io import err, out, print_json, table
from driftgate.drift_setting import check_model_of
from driftgate.errors import DriftgateError, Exit
from driftgate.preflight import Plan, checklist
from driftgate.settings import kafka_settings, model_setting, policy_setting, service_setting
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas.control import ControlEvent, RollbackConfirmed
from schemas.log import Command, OperatorCommand
from schemas.preflight import PreflightCheck, PreflightResult
from schemas.settings import KafkaSettings

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Start, watch and steer a rollout.")

Actor = Annotated[str | None, typer.Option(help="Who asks; recorded with the decision. [the user]")]
Reason = Annotated[str, typer.Option(help="Why; recorded with the decision.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=1.0, help="Seconds to wait for the monitor's answer.")
]
Green = Annotated[str | None, typer.Option(help="Deployment to roll out; else the policy's.")]
_TIMEOUT_S = 15.0
_QUIET = frozenset({PreflightCheck.ALERTS})
"""Left out of a start where the policy does not ask for it: it wakes people."""


def _with_topics(bootstrap: str | None, work: Callable[[KafkaSettings], Awaitable[T]]) -> T:
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)

    async def run() -> T:
        await ensure_topics(kafka)
        return await work(kafka)

    return asyncio.run(run())


def _answer(event: ControlEvent, *, json: bool) -> None:
    if json:
        print_json(event)
    else:
        out.print(event_line(event), markup=False)


def _send(asked: OperatorCommand, bootstrap: str | None, timeout_s: float, *, json: bool) -> None:
    event = _with_topics(bootstrap, lambda kafka: command(kafka, asked, timeout_s=timeout_s))
    _answer(event, json=json)


def _plan(kafka: KafkaSettings, service: str, policy: Path | None, green: str | None) -> Plan:
    chosen = policy_setting(os.environ, policy)
    name = green or chosen.green
    deployment = chosen.deployment(name)
    if deployment is None:
        known = ", ".join(d.name for d in chosen.deployments)
        raise DriftgateError(
            f"the policy has no deployment {name!r}; it has: {known}", Exit.SETTINGS
        )
    if chosen.drift.enabled and chosen.drift.reference is not None:
        check_model_of(
            chosen.drift.reference,
            model_setting(os.environ),
            where="drift.reference (DRIFTGATE_DRIFT_REFERENCE)",
        )
    return Plan(kafka, service, chosen, deployment)


def _checked(
    bootstrap: str | None, service: str | None, policy: Path | None, green: str | None
) -> tuple[Plan, list[PreflightResult]]:
    """Run the checklist before a start, and refuse what the policy does not allow."""
    name = service_setting(os.environ, service)
    plan = _plan(kafka_settings(os.environ, bootstrap), name, policy, green)
    without = _QUIET - set(plan.policy.preflight)
    results = _with_topics(bootstrap, lambda _: checklist(plan, os.environ, without=without))
    required = set(plan.policy.preflight)
    wrong = [r for r in results if not r.passed]
    for result in wrong:
        kind = "required" if result.check in required else "advised"
        err.print(f"{kind}: {result.check}: {result.found}; {result.cure}", markup=False)
    missing = [r.check for r in wrong if r.check in required]
    if missing:
        raise DriftgateError(f"not started: the policy requires {', '.join(missing)}", Exit.REFUSED)
    return plan, results


@app.command()
def start(
    green: Green = None,
    policy: PolicyFile = None,
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Start a rollout at its first stage, judged by a policy that stays fixed until its end.

    Before, it runs the checks of `driftgate rollout preflight`, says what did not pass, and starts
    nothing if the policy requires it.
    """
    plan, results = _checked(bootstrap, service, policy, green)
    asked = new_command(
        Command.START,
        plan.service,
        actor=actor or default_actor(),
        reason=reason,
        green=green,
        policy=plan.policy,
        preflight=results,
    )
    _send(asked, bootstrap, timeout_s, json=json)


@app.command()
def retry(
    policy: PolicyFile = None,
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Start again what was rolled back, under its policy, with other users first.

    The checks are run again; --policy is the one that says what to check.
    """
    plan, results = _checked(bootstrap, service, policy, None)
    asked = new_command(
        Command.RETRY,
        plan.service,
        actor=actor or default_actor(),
        reason=reason,
        preflight=results,
    )
    _send(asked, bootstrap, timeout_s, json=json)


@app.command()
def promote(
    full: Annotated[
        bool, typer.Option("--full", help="To the end at once, not just to the next stage.")
    ] = False,
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Go to the next stage without waiting for the gates."""
    asked = new_command(
        Command.PROMOTE,
        service_setting(os.environ, service),
        actor=actor or default_actor(),
        reason=reason,
        full=full,
    )
    _send(asked, bootstrap, timeout_s, json=json)


def _steering(kind: Command, text: str) -> None:
    """A command that takes nothing but who and why."""

    @app.command(kind.value, help=text)
    def steer(
        service: Service = None,
        actor: Actor = None,
        reason: Reason = "",
        timeout_s: Timeout = _TIMEOUT_S,
        bootstrap: Bootstrap = None,
        json: JsonFlag = False,
    ) -> None:
        name = service_setting(os.environ, service)
        asked = new_command(kind, name, actor=actor or default_actor(), reason=reason)
        _send(asked, bootstrap, timeout_s, json=json)


_steering(Command.PAUSE, "Keep the share where it is; guardrails still roll back.")
_steering(Command.RESUME, "Go on with a paused rollout; its stage begins anew.")
_steering(Command.ABORT, "Take all users back to blue at once, also after a promotion.")


@app.command()
def preflight(
    green: Green = None,
    policy: PolicyFile = None,
    service: Service = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Run the deployment checklist; a test alert goes to every channel. Starts nothing."""
    name = service_setting(os.environ, service)
    plan = _plan(kafka_settings(os.environ, bootstrap), name, policy, green)
    require_broker(plan.kafka.bootstrap_servers)
    _show(asyncio.run(checklist(plan, os.environ)), plan, json=json)


def _show(results: Sequence[PreflightResult], plan: Plan, *, json: bool) -> None:
    required = set(plan.policy.preflight)
    if json:
        for result in results:
            print_json(result)
    else:
        rows = [
            (
                "ok" if r.passed else "FAILED",
                r.check,
                "required" if r.check in required else "advised",
                r.found,
                r.cure,
            )
            for r in results
        ]
        title = f"before {plan.green.name} is rolled out to {plan.service}"
        out.print(table(title, ("", "check", "policy", "found", "what to do"), rows))
    if not all(result.passed for result in results):
        raise typer.Exit(Exit.FAILED)


@app.command()
def rehearse(
    green: Green = None,
    policy: PolicyFile = None,
    service: Service = None,
    actor: Actor = None,
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Start green in shadow, take it back, and wait for every worker. It serves nobody."""
    name = service_setting(os.environ, service)
    plan = _plan(kafka_settings(os.environ, bootstrap), name, policy, green)
    who = actor or default_actor()

    async def run(kafka: KafkaSettings) -> RollbackConfirmed:
        begin = new_command(
            Command.START, name, actor=who, reason="rehearsal of a rollback",
            green=green, policy=plan.policy, rehearsal=True,
        )  # fmt: skip
        started = await command(kafka, begin, timeout_s=timeout_s)
        err.print(event_line(started), markup=False)
        abort = new_command(Command.ABORT, name, actor=who, reason="rehearsal of a rollback")
        return await confirmed(kafka, abort, timeout_s=timeout_s)

    _answer(_with_topics(bootstrap, run), json=json)


app.command()(status)
app.command()(explain)
