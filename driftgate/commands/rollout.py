"""`driftgate rollout ...`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from driftgate.commanding import command, default_actor, new_command
from driftgate.commands.control import event_line
from driftgate.commands.options import Bootstrap, JsonFlag, PolicyFile, Service
from driftgate.commands.replay import explain
from driftgate.console_io import out, print_json, table
from driftgate.errors import DriftgateError, Exit
from driftgate.reading import latest_gate_status, latest_rollout, latest_windows
from driftgate.settings import kafka_settings, policy_setting, service_setting
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas.log import Command
from schemas.policy import Policy
from schemas.rollout import Mode

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Start, watch and steer a rollout.")

Actor = Annotated[str | None, typer.Option(help="Who asks; recorded with the decision. [the user]")]
Reason = Annotated[str, typer.Option(help="Why; recorded with the decision.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=1.0, help="Seconds to wait for the monitor's answer.")
]
_TIMEOUT_S = 15.0


def _send(
    kind: Command,
    bootstrap: str | None,
    service: str | None,
    actor: str | None,
    reason: str,
    timeout_s: float,
    *,
    json: bool,
    green: str | None = None,
    full: bool = False,
    policy: Policy | None = None,
) -> None:
    kafka = kafka_settings(os.environ, bootstrap)
    require_broker(kafka.bootstrap_servers)
    asked = new_command(
        kind,
        service_setting(os.environ, service),
        actor=actor or default_actor(),
        reason=reason,
        green=green,
        full=full,
        policy=policy,
    )

    async def run() -> None:
        await ensure_topics(kafka)
        event = await command(kafka, asked, timeout_s=timeout_s)
        if json:
            print_json(event)
        else:
            out.print(event_line(event), markup=False)

    asyncio.run(run())


@app.command()
def start(
    green: Annotated[
        str | None, typer.Option(help="Deployment to roll out; else the policy's.")
    ] = None,
    policy: PolicyFile = None,
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Start a rollout at its first stage, judged by a policy that stays fixed until its end."""
    _send(
        Command.START,
        bootstrap,
        service,
        actor,
        reason,
        timeout_s,
        json=json,
        green=green,
        policy=policy_setting(os.environ, policy),
    )


@app.command()
def pause(
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Keep the share where it is; guardrails still roll back."""
    _send(Command.PAUSE, bootstrap, service, actor, reason, timeout_s, json=json)


@app.command()
def resume(
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Go on with a paused rollout; its stage begins anew."""
    _send(Command.RESUME, bootstrap, service, actor, reason, timeout_s, json=json)


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
    _send(Command.PROMOTE, bootstrap, service, actor, reason, timeout_s, json=json, full=full)


@app.command()
def abort(
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Take all users back to blue at once, also after a promotion."""
    _send(Command.ABORT, bootstrap, service, actor, reason, timeout_s, json=json)


@app.command()
def retry(
    service: Service = None,
    actor: Actor = None,
    reason: Reason = "",
    timeout_s: Timeout = _TIMEOUT_S,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Start again what was rolled back, under the same policy, with other users first."""
    _send(Command.RETRY, bootstrap, service, actor, reason, timeout_s, json=json)


@app.command()
def status(service: Service = None, bootstrap: Bootstrap = None, json: JsonFlag = False) -> None:
    """Show where the rollout stands, its gates, and the newest metrics of each arm."""
    kafka = kafka_settings(os.environ, bootstrap)
    name = service_setting(os.environ, service)
    require_broker(kafka.bootstrap_servers)

    async def read() -> None:
        state = await latest_rollout(kafka, name)
        status = await latest_gate_status(kafka, name)
        if state is None and status is None:
            raise DriftgateError(
                f"nothing is known of service {name!r}: is a monitor running, and an analyzer?",
                Exit.FAILED,
            )
        windows = await latest_windows(kafka, name)
        if json:
            print_json({"rollout": state, "gates": status, "windows": windows})
            return
        if state is None:
            out.print(f"{name}: no rollout yet", markup=False)
        else:
            green = state.green.name if state.green else "-"
            of = f" of {', '.join(state.only_segments)}" if state.only_segments else ""
            kind = "experiment, " if state.mode is Mode.EXPERIMENT else ""
            out.print(
                f"{name}: {kind}{state.phase}, stage {state.stage}, blue {state.blue.name}, "
                f"green {green} at {state.share:.0%}{of} (shadow {state.shadow_share:.0%}), "
                f"revision {state.revision}",
                markup=False,
            )
            out.print(f"  {state.reason}", markup=False)
        if status is not None:
            workers = ", ".join(status.live_workers) or "none"
            out.print(
                f"  {status.measured} prompts measured; live workers: {workers}", markup=False
            )
            if status.gates:
                judged = [
                    (
                        g.gate,
                        g.role,
                        g.objective,
                        _number(g.value),
                        f"{_number(g.lower)} .. {_number(g.upper)}",
                        _number(g.limit),
                        str(g.samples),
                        g.verdict,
                    )
                    for g in status.gates
                ]
                gate_columns = (
                    "gate",
                    "role",
                    "objective",
                    "value",
                    "interval",
                    "limit",
                    "rows",
                    "verdict",
                )
                out.print(table("gates", gate_columns, judged))
        rows = [
            (
                w.arm,
                str(w.prompts),
                _number(w.processing_seconds_p95, 1000),
                str(w.system_errors + w.semantic_errors),
                _number(w.score_mean),
                _number(w.coherence_mean),
                _number(w.relevance_mean),
            )
            for w in windows
        ]
        names = ("arm", "prompts", "p95 ms", "errors", "score", "coherence", "relevance")
        out.print(table("newest window", names, rows))

    asyncio.run(read())


app.command()(explain)


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.3g}"
