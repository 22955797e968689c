"""The deployment checklist as checks that run, before a rollout starts (M70, M71)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from driftgate.alerting import channels_of, try_channels
from driftgate.errors import SettingsError
from driftgate.heartbeats import RECENT_MS, live_workers
from driftgate.reading import decode_control, latest_rollout, read_all
from driftgate.settings import validation_report_setting
from driftgate.topics import check_topics
from schemas.control import RollbackConfirmed, RolloutStarted
from schemas.errors import DecodeError
from schemas.log import ModelState
from schemas.policy import Policy
from schemas.preflight import PreflightCheck, PreflightResult
from schemas.rollout import Deployment, DeploymentKind, Phase
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["REHEARSED_DAYS", "Plan", "checklist"]

REHEARSED_DAYS = 30
"""A rehearsal that is older says little about the fleet of today."""
_DAY_MS = 86_400_000


class Plan(NamedTuple):
    """A rollout that somebody is about to start."""

    kafka: KafkaSettings
    service: str
    policy: Policy
    green: Deployment


class _Comparison(msgspec.Struct):
    """What is needed of a report of `driftgate validate`."""

    semantic_weight: float
    improvement: float
    improvement_low: float
    rows: int
    passes: bool
    reason: str


class _Report(msgspec.Struct):
    file: str
    comparison: _Comparison


async def checklist(
    plan: Plan, environ: Mapping[str, str], *, without: frozenset[PreflightCheck] = frozenset()
) -> list[PreflightResult]:
    """What each check finds, in an order in which a failure explains those after it.

    Args:
        plan: what is about to start.
        environ: the environment.
        without: checks that are left out.
    """
    checks: dict[PreflightCheck, Callable[[], Awaitable[PreflightResult]]] = {
        PreflightCheck.TOPICS: lambda: _topics(plan),
        PreflightCheck.POLICY: lambda: _policy(plan),
        PreflightCheck.WORKERS: lambda: _workers(plan),
        PreflightCheck.VALIDATION: lambda: _validation(
            plan.green, validation_report_setting(environ)
        ),
        PreflightCheck.REHEARSAL: lambda: _rehearsal(plan),
        PreflightCheck.ALERTS: lambda: _alerts(plan, environ),
    }
    return [await run() for check, run in checks.items() if check not in without]


async def _topics(plan: Plan) -> PreflightResult:
    wrong = [t for t in await check_topics(plan.kafka) if t.problem]
    return PreflightResult(
        check=PreflightCheck.TOPICS,
        passed=not wrong,
        found="; ".join(f"{t.name} {t.problem}" for t in wrong) or "all are as they must be",
        cure=wrong[0].cure if wrong else "",
    )


async def _policy(plan: Plan) -> PreflightResult:
    state = await latest_rollout(plan.kafka, plan.service)
    wrong = cure = ""
    if state is not None and state.phase in (Phase.PROGRESSING, Phase.PAUSED):
        wrong = f"rollout {state.rollout_id} is {state.phase}"
        cure = "abort or promote it first"
    elif state is not None and state.blue.name == plan.green.name:
        wrong = f"{plan.green.name!r} is what serves already"
        cure = "name another with --green, or change the policy"
    gates = [g for g in plan.policy.gates if not g.dry_run]
    return PreflightResult(
        check=PreflightCheck.POLICY,
        passed=not wrong,
        found=wrong
        or f"{plan.green.name} in {len(plan.policy.stages)} stages, {len(gates)} gates that act, "
        f"hash {plan.policy.hash}",
        cure=cure,
    )


async def _workers(plan: Plan) -> PreflightResult:
    live = await live_workers(plan.kafka, plan.service)
    semantic = plan.green.kind is DeploymentKind.SEMANTIC
    state = await latest_rollout(plan.kafka, plan.service)
    revision = state.revision if state is not None else 0
    without = [n for n, beat in live.items() if semantic and beat.model is not ModelState.READY]
    behind = [n for n, beat in live.items() if beat.applied_revision < revision]
    wrong = cure = ""
    if not live:
        wrong = f"no analyzer of {plan.service!r} was heard of within {RECENT_MS // 1000} s"
        cure = "start one: driftgate analyzer"
    elif without:
        wrong = f"no model: {', '.join(without)}"
        cure = "wait until it is loaded, or see the worker's log for the reason"
    elif behind:
        wrong = f"not at revision {revision}: {', '.join(behind)}"
        cure = "restart them"
    found = wrong or f"{len(live)} alive{', with the model of green loaded' if semantic else ''}"
    return PreflightResult(check=PreflightCheck.WORKERS, passed=not wrong, found=found, cure=cure)


async def _validation(green: Deployment, path: Path) -> PreflightResult:
    def result(found: str, cure: str = "", *, passed: bool = False) -> PreflightResult:
        return PreflightResult(
            check=PreflightCheck.VALIDATION, passed=passed, found=found, cure=cure
        )

    if green.kind is not DeploymentKind.SEMANTIC:
        return result(f"{green.name} has no model to validate", passed=True)
    again = f"run: driftgate validate LABELLED.jsonl --weight {green.semantic_weight:g}"
    try:
        report = msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=_Report)
    except OSError as error:
        return result(f"no report at {path}: {error.strerror or error}", again)
    except msgspec.MsgspecError as error:
        return result(f"{path} is no validation report: {error}", again)
    comparison = report.comparison
    if comparison.semantic_weight != green.semantic_weight:
        return result(
            f"{path} is about a blend at {comparison.semantic_weight:g}, and {green.name} blends "
            f"at {green.semantic_weight:g}",
            again,
        )
    if not comparison.passes:
        return result(f"{path}: {comparison.reason}", "a green that does not help had better wait")
    return result(
        f"{comparison.improvement:+.1%} (at least {comparison.improvement_low:+.1%}) on "
        f"{comparison.rows} rows of {report.file}",
        passed=True,
    )


async def _rehearsal(plan: Plan) -> PreflightResult:
    started: dict[str | None, RolloutStarted] = {}
    newest: RollbackConfirmed | None = None
    for record in await read_all(plan.kafka, Topic.CONTROL, committed_only=False):
        if record.key != plan.service.encode():
            continue
        try:
            event = decode_control(record)
        except DecodeError:
            continue
        if isinstance(event, RolloutStarted):
            started[event.rollout_id] = event
        elif isinstance(event, RollbackConfirmed):
            of = started.get(event.rollout_id)
            if of is not None and of.green == plan.green.name:
                newest = event
    age_days = (time.time_ns() // 1_000_000 - newest.at_ms) / _DAY_MS if newest else float("inf")
    passed = age_days <= REHEARSED_DAYS
    found = f"no rollback of {plan.green.name} was ever confirmed"
    if newest is not None:
        found = (
            f"a rollback of {plan.green.name} was confirmed by {len(newest.workers)} workers in "
            f"{newest.confirmed_ms} ms, {age_days:.1f} days ago"
        )
    return PreflightResult(
        check=PreflightCheck.REHEARSAL,
        passed=passed,
        found=found,
        cure="" if passed else "run: driftgate rollout rehearse",
    )


async def _alerts(plan: Plan, environ: Mapping[str, str]) -> PreflightResult:
    try:
        channels = channels_of(environ, plan.kafka)
    except SettingsError as error:
        return PreflightResult(
            check=PreflightCheck.ALERTS, passed=False, found="nobody would be told", cure=str(error)
        )
    tried = await try_channels(channels, plan.service)
    failed = [one for one in tried if not one.delivered]
    found = "; ".join(f"{one.channel}: {one.error}" for one in failed)
    return PreflightResult(
        check=PreflightCheck.ALERTS,
        passed=not failed,
        found=found or f"a test alert was taken by {', '.join(one.channel for one in tried)}",
        cure="see docs/alerts.md" if failed else "",
    )
