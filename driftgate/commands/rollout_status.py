"""`driftgate rollout status`."""

from __future__ import annotations

import asyncio
import os

from driftgate.commands.options import Bootstrap, JsonFlag, Service
from driftgate.console_io import out, print_json, table
from driftgate.errors import DriftgateError, Exit
from driftgate.reading import latest_gate_status, latest_rollout, latest_windows
from driftgate.settings import kafka_settings, service_setting
from driftgate.waiting import require_broker
from schemas.control import GateStatus, WindowMetrics
from schemas.rollout import Mode, RolloutState

__all__ = ["status"]


def status(service: Service = None, bootstrap: Bootstrap = None, json: JsonFlag = False) -> None:
    """Show where the rollout stands, its gates, and the newest metrics of each arm."""
    kafka = kafka_settings(os.environ, bootstrap)
    name = service_setting(os.environ, service)
    require_broker(kafka.bootstrap_servers)

    async def read() -> tuple[RolloutState | None, GateStatus | None, list[WindowMetrics]]:
        return (
            await latest_rollout(kafka, name),
            await latest_gate_status(kafka, name),
            await latest_windows(kafka, name),
        )

    state, gates, windows = asyncio.run(read())
    if state is None and gates is None:
        raise DriftgateError(
            f"nothing is known of service {name!r}: is a monitor running, and an analyzer?",
            Exit.FAILED,
        )
    if json:
        print_json({"rollout": state, "gates": gates, "windows": windows})
        return
    for line in _where_it_stands(name, state):
        out.print(line, markup=False)
    if gates is not None:
        _show_gates(gates)
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


def _where_it_stands(name: str, state: RolloutState | None) -> list[str]:
    if state is None:
        return [f"{name}: no rollout yet"]
    green = state.green.name if state.green else "-"
    of = f" of {', '.join(state.only_segments)}" if state.only_segments else ""
    kind = "experiment, " if state.mode is Mode.EXPERIMENT else ""
    where = (
        f"{name}: {kind}{state.phase}, stage {state.stage}, blue {state.blue.name}, "
        f"green {green} at {state.share:.0%}{of} (shadow {state.shadow_share:.0%}), "
        f"revision {state.revision}"
    )
    return [where, f"  {state.reason}"]


def _show_gates(status: GateStatus) -> None:
    workers = ", ".join(status.live_workers) or "none"
    line = f"  {status.measured} prompts measured; live workers: {workers}"
    if status.fenced_workers:
        line += f"; fenced: {', '.join(status.fenced_workers)}"
    if status.refused:
        line += f"; {status.refused} records of the log could not be used"
    out.print(line, markup=False)
    if not status.gates:
        return
    rows = [
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
    names = ("gate", "role", "objective", "value", "interval", "limit", "rows", "verdict")
    out.print(table("gates", names, rows))


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.3g}"
