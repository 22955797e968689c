"""`driftgate replay` and `driftgate rollout explain`: decisions, folded again from the log."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from driftgate.commands.control import event_line
from driftgate.commands.options import Bootstrap, JsonFlag, Service
from driftgate.console_io import err, out, print_json
from driftgate.errors import DriftgateError, Exit
from driftgate.plots import save_png, terminal_plot
from driftgate.reading import TopicReader
from driftgate.settings import kafka_settings, service_setting
from driftgate.topics import ensure_topics
from driftgate.waiting import require_broker
from schemas import cloudevents
from schemas.control import ControlEvent, GateReport, Verdict
from schemas.errors import DecodeError
from schemas.policy import load_policy
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.fold import LogEntry
from streams.replay import Disagreement, Replay, Trace, disagreements, gates_of, under_policy

__all__ = ["explain", "replay"]

_PROGRESS_S = 1.0
_SETTLE_S = 10.0
"""What was decided a moment ago may not stand on the control topic yet: it is waited for."""


def replay(
    service: Service = None,
    decision: Annotated[
        str | None, typer.Option("--decision", help="Only the decision with this id.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Fail unless the control topic says the same.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="What would have happened under another policy (YAML)."),
    ] = None,
    bootstrap: Bootstrap = None,
    json: JsonFlag = False,
) -> None:
    """Fold a service's log again from its beginning, and print each decision with its evidence."""
    if verify and policy is not None:
        raise DriftgateError(
            "--verify compares with what happened, --policy says what did not: give one of them",
            Exit.USAGE,
        )
    kafka = kafka_settings(os.environ, bootstrap)
    name = service_setting(os.environ, service)
    other = load_policy(policy) if policy is not None else None
    require_broker(kafka.bootstrap_servers)

    async def run() -> tuple[Replay, list[Disagreement]]:
        await ensure_topics(kafka)
        entries = await _log_of(kafka, name)
        fold = _folded(name, entries if other is None else under_policy(entries, other))
        return fold, await _verified(kafka, name, fold) if verify else []

    fold, wrong = asyncio.run(run())
    shown = [e for e in fold.decisions if decision is None or e.id == decision]
    if decision is not None and not shown:
        raise DriftgateError(_unknown(decision, name), Exit.FAILED)
    for event in shown:
        if json:
            print_json(event)
            continue
        out.print(f"{event.id} {event_line(event)}", markup=False)
        for report in gates_of(event):
            out.print(f"    {report.gate}: {report.reason}", markup=False)
    if not verify:
        return
    for one in wrong:
        err.print(f"{one.id} {one.what}", markup=False)
    if wrong:
        raise DriftgateError(
            f"{len(wrong)} of {len(fold.decisions)} decisions of {name!r} do not agree with the "
            "log: were they made by another version of driftgate (see their code_version)?",
            Exit.FAILED,
        )
    err.print(f"all {len(fold.decisions)} decisions of {name!r} follow from its log", markup=False)


def explain(
    decision: Annotated[str, typer.Argument(metavar="ID", help="Of the decision.")],
    service: Service = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Draw the evidence into this file.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Say in plain words why a decision was taken, with the evidence that led to it."""
    kafka = kafka_settings(os.environ, bootstrap)
    name = service_setting(os.environ, service)
    require_broker(kafka.bootstrap_servers)

    async def run() -> Replay:
        await ensure_topics(kafka)
        return _folded(name, await _log_of(kafka, name), trace=decision)

    fold = asyncio.run(run())
    event = next((e for e in fold.decisions if e.id == decision), None)
    if event is None:
        raise DriftgateError(_unknown(decision, name), Exit.FAILED)
    for line in in_words(event):
        out.print(line, markup=False)
    reports = gates_of(event)
    if not reports or fold.trace is None or reports[0].gate not in fold.trace.points:
        # What is counted of the analyzers has no e-value to draw.
        return
    report = reports[0]
    seconds, values, boundary, label = series(report, fold.trace)
    title = f"{report.gate}: {label}"
    out.print(f"\n{title}, and the boundary that certifies it (log e-value)", markup=False)
    for line in terminal_plot(seconds, values, boundary):
        out.print(line, markup=False, highlight=False)
    if png is not None:
        try:
            save_png(png, seconds, values, boundary, title=title, label=label)
        except OSError as error:
            raise DriftgateError(f"{png} cannot be written: {error}", Exit.FAILED) from error
        err.print(f"drawn into {png}", markup=False)


def in_words(event: ControlEvent) -> list[str]:
    """A decision for somebody who has not read any documentation."""
    kind = str(event.__struct_config__.tag)
    by = "driftgate decided this by itself" if event.actor == "driftgate" else (
        f"{event.actor} asked for this (command {event.command_id})"
    )  # fmt: skip
    where = f"record {event.cause.offset} of partition {event.cause.partition} of the log"
    under = f"under policy {event.policy_hash}, by driftgate {event.code_version}"
    lines = [event_line(event), f"{by}, on {where}, {under}."]
    lines += [f"- {_gate_in_words(report)}" for report in gates_of(event)]
    if kind == "rollout.rolled_back":
        lines.append("So all users were sent back to the deployment that served before.")
    elif kind == "rollout.advanced":
        lines.append(f"So green serves {event.share:.0%} of the users from then on.")
    return lines


def _gate_in_words(report: GateReport) -> str:
    says = {
        Verdict.FAILED: "is certified to be broken",
        Verdict.SUCCESSFUL: "is certified to hold",
        Verdict.INCONCLUSIVE: "was not certified either way",
        Verdict.ERROR: "could not be judged",
    }[report.verdict]
    trial = " (a dry run: it may not act)" if report.dry_run else ""
    numbers = ""
    if report.value is not None and report.limit is not None:
        numbers = f": {report.value:.4g} where the limit is {report.limit:.4g}"
        if report.lower is not None and report.upper is not None:
            numbers += f", surely between {report.lower:.4g} and {report.upper:.4g}"
        numbers += f", over {report.samples} prompts of the candidate"
        if report.control_samples:
            numbers += f" and {report.control_samples} of the control arm"
    return (
        f"{report.role} {report.gate} ({report.metric} {report.objective}) {says}{trial}{numbers}"
    )


def series(report: GateReport, trace: Trace) -> tuple[list[float], list[float], float, str]:
    """Seconds, log e-values, boundary and name of the evidence behind a report."""
    points = trace.points[report.gate]
    good = report.verdict is Verdict.SUCCESSFUL
    seconds = [(p.at_ms - points[0].at_ms) / 1000 for p in points]
    values = [p.good if good else p.breach for p in points]
    boundary = -math.log(trace.alpha_good if good else trace.alphas[report.gate])
    return seconds, values, boundary, f"evidence that it {'holds' if good else 'is broken'}"


def _unknown(decision: str, service: str) -> str:
    return (
        f"no decision {decision!r} follows from the log of {service!r}: "
        f"`driftgate replay --service {service}` lists them"
    )


async def _log_of(kafka: KafkaSettings, service: str) -> list[LogEntry]:
    found: list[LogEntry] = []
    async with TopicReader(kafka, Topic.LOG) as reader:
        shown = time.monotonic()
        async for record in reader.to_end():
            if record.key == service.encode():
                found.append(
                    LogEntry(record.partition, record.offset, record.timestamp, record.value)
                )
            if time.monotonic() - shown > _PROGRESS_S:
                shown = time.monotonic()
                err.print(f"read {len(found)} records of {service!r} ...", markup=False)
        begins = await reader.beginnings()
    partitions = {entry.partition for entry in found}
    for partition in sorted(partitions):
        if begins[partition]:
            err.print(
                f"the log begins at offset {begins[partition]}: what was decided before cannot be "
                "replayed, and what followed from it may differ; keep the topic longer "
                "(retention.ms) to replay all of it",
                markup=False,
            )
    if not found:
        raise DriftgateError(f"the log has no record of service {service!r}", Exit.FAILED)
    if len(partitions) > 1:
        raise DriftgateError(
            f"{service!r} has records in {len(partitions)} partitions of the log: was the number "
            "of partitions changed? Such a log has no order to be folded in",
            Exit.FAILED,
        )
    return found


def _folded(service: str, entries: Iterable[LogEntry], *, trace: str | None = None) -> Replay:
    fold = Replay(service, trace=trace)
    shown = time.monotonic()
    for number, entry in enumerate(entries):
        fold.take(entry)
        if time.monotonic() - shown > _PROGRESS_S:
            shown = time.monotonic()
            err.print(f"folded {number + 1} records ...", markup=False)
    return fold


async def _verified(kafka: KafkaSettings, service: str, fold: Replay) -> list[Disagreement]:
    last = fold.state.last_offset
    deadline = time.monotonic() + _SETTLE_S
    while True:
        published = []
        async with TopicReader(kafka, Topic.CONTROL) as reader:
            async for record in reader.to_end():
                if record.key == service.encode() and not _later(record.value, last):
                    id = cloudevents.attributes(record.headers).get("id", "")
                    published.append((id, bytes(record.value or b"")))
        wrong = disagreements(fold.decisions, published)
        if not wrong or time.monotonic() > deadline:
            return wrong
        if any("is not on the control topic" not in one.what for one in wrong):
            return wrong
        await asyncio.sleep(0.5)


def _later(value: bytes | None, last_offset: int) -> bool:
    """Whether a decision was made on a record that this replay has not read."""
    try:
        event: ControlEvent = cloudevents.decode_json(value, cloudevents.CONTROL_EVENT)
    except DecodeError:
        return False
    return event.cause.offset > last_offset
