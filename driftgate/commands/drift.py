"""`driftgate drift ...`: make a reference, look at it, and see how the detectors stand."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from analyzer.encoder_choice import choose_encoder
from analyzer.errors import AnalyzerError, Rejection
from analyzer.model import locate_model
from analyzer.validate import Limits, validate
from driftgate.commands.options import Bootstrap, JsonFlag, PolicyFile, Service
from driftgate.console_io import err, out, print_json, table
from driftgate.errors import DriftgateError, Exit
from driftgate.producing import BadRow, read_prompts
from driftgate.reading import latest_gate_status
from driftgate.settings import (
    analyzer_settings,
    kafka_settings,
    policy_setting,
    service_setting,
)
from driftgate.waiting import require_broker
from schemas.drift import DriftReading
from schemas.drift_reference import ReferenceFile, load_reference
from schemas.errors import DriftReferenceError
from schemas.policy import Policy
from schemas.prompts import PromptSubmitted

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Watch whether prompts are still what they were.")


@app.command()
def calibrate(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="JSONL or CSV of usual prompts, as for `produce`."
        ),
    ],
    out_file: Annotated[Path, typer.Option("--out", help="Where the reference goes.")] = Path(
        "reference.json"
    ),
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the map, the clusters and the trials.")
    ] = 1,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a drift reference of prompts from a time when nothing was wrong.

    Give it to analyzers, and to who starts a rollout, as DRIFTGATE_DRIFT_REFERENCE. Score gain is
    that of the policy's green deployment.
    """
    from analyzer.calibration import load_calibration
    from analyzer.domains import load_domains
    from analyzer.features import SemanticFeatures
    from driftgate.drifting import make_reference, measure

    prompts = _read(file)
    # Without the reference that is configured now: it may be what is to be replaced.
    environ = {k: v for k, v in os.environ.items() if k != "DRIFTGATE_DRIFT_REFERENCE"}
    settings = analyzer_settings(environ, kafka_settings(environ))
    weight = _weight(policy_setting(environ, policy))
    try:
        with err.status("loading the model"):
            encoder = choose_encoder(
                settings.encoder,
                locate_model(settings.model),
                settings.model_cache_dir,
                device=settings.device,
            )
            scorer = SemanticFeatures(
                encoder,
                load_domains(settings.domains_file),
                load_calibration(settings.calibration_file),
            )
        measured = measure(prompts, encoder, scorer, weight)
        with err.status("calibrating thresholds"):
            made = make_reference(measured, encoder, source=file.name, seed=seed)
    except AnalyzerError as error:
        raise DriftgateError(str(error)) from error
    except ValueError as error:
        raise DriftgateError(f"{file}: {error}") from error
    try:
        out_file.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    except OSError as error:
        raise DriftgateError(f"{out_file}: cannot be written: {error}") from error
    _print(made, policy_setting(environ, policy), json=json)
    err.print(f"written: {out_file}; set DRIFTGATE_DRIFT_REFERENCE={out_file}", markup=False)


def _read(file: Path) -> list[PromptSubmitted]:
    rows = list(read_prompts(file))
    bad = [row for row in rows if isinstance(row, BadRow)]
    if bad:
        first = bad[0]
        raise DriftgateError(
            f"{file}:{first.line}: {first.reason} ({len(bad)} such rows): mend them or take them "
            "out, since the reference should say what prompts are like"
        )
    prompts = [row for row in rows if isinstance(row, PromptSubmitted) and _is_accepted(row)]
    if len(prompts) < len(rows):
        count = len(rows) - len(prompts)
        err.print(f"left out: {count} prompts that an analyzer would refuse", markup=False)
    return prompts


def _is_accepted(prompt: PromptSubmitted) -> bool:
    """Whether an analyzer would measure it."""
    try:
        validate(prompt, Limits())
    except Rejection:
        return False
    return True


def _weight(policy: Policy) -> float:
    green = policy.deployment(policy.green)
    assert green is not None  # a policy without it is refused
    return green.semantic_weight


@app.command()
def show(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A reference.")],
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Show what a reference says, and where its thresholds are under a policy."""
    try:
        found = load_reference(file)
    except DriftReferenceError as error:
        raise DriftgateError(str(error), Exit.SETTINGS) from error
    environ = {k: v for k, v in os.environ.items() if k != "DRIFTGATE_DRIFT_REFERENCE"}
    _print(found, policy_setting(environ, policy), json=json)


def _print(file: ReferenceFile, policy: Policy, *, json: bool) -> None:
    from streams.drift.watch import new_drift_watch

    reference = file.reference
    rules = msgspec.structs.replace(policy.drift, reference=reference)
    readings = [r for r in new_drift_watch(rules).readings() if not r.learned]
    if json:
        print_json(
            {
                "id": reference.id,
                "model": reference.model,
                "dimension": reference.dimension,
                "rows": reference.rows,
                "source": reference.source,
                "centroids": len(file.centroid_vectors()),
                "features": reference.features,
                "average_run_length": rules.average_run_length,
                "thresholds": [
                    {"feature": r.feature, "detector": r.detector, "threshold": r.threshold}
                    for r in readings
                ],
            }
        )
        return
    out.print(
        f"reference {reference.id}: {reference.rows} prompts of {reference.source or '-'}, "
        f"{len(file.centroid_vectors())} centroids\n  model {reference.model}, "
        f"{reference.dimension} dimensions",
        markup=False,
    )
    names = ("feature", "mean", "sd", "5 %", "50 %", "95 %", "tolerance")
    rows = [
        (
            f.feature,
            *(f"{x:.4g}" for x in (f.mean, f.sd)),
            *(f"{f.quantiles[place]:.4g}" if f.quantiles else "-" for place in (0, 2, 4)),
            f"{f.tolerance:.2f} sd",
        )
        for f in reference.features
    ]
    out.print(table("features", names, rows))
    title = f"thresholds, for one false alarm in {rules.average_run_length:g} prompts"
    limits = [(r.feature, r.detector, f"{r.threshold:.4g}") for r in readings]
    out.print(table(title, ("feature", "detector", "threshold"), limits))


@app.command()
def status(service: Service = None, bootstrap: Bootstrap = None, json: JsonFlag = False) -> None:
    """Show how every detector stands."""
    kafka = kafka_settings(os.environ, bootstrap)
    name = service_setting(os.environ, service)
    require_broker(kafka.bootstrap_servers)
    found = asyncio.run(latest_gate_status(kafka, name))
    if found is None:
        raise DriftgateError(
            f"nothing is known of service {name!r}: is a monitor running, and an analyzer?",
            Exit.FAILED,
        )
    if json:
        for reading in found.drift:
            print_json(reading)
        return
    drifting = sorted({r.feature for r in found.drift if r.drifting})
    out.print(
        f"{name}: {'drifting: ' + ', '.join(drifting) if drifting else 'no drift'}, "
        f"{found.measured} prompts measured",
        markup=False,
    )
    columns = ("feature", "detector", "statistic", "threshold", "against", "state")
    out.print(table("detectors", columns, [_line(reading) for reading in found.drift]))


def _line(reading: DriftReading) -> tuple[str, ...]:
    if reading.drifting:
        state = "drifting"
    elif reading.statistic is None:
        state = "too few rows"
    else:
        state = "quiet"
    if reading.foreign_rows:
        state += f"; {reading.foreign_rows} rows measured with another reference left out"
    return (
        reading.feature,
        reading.detector,
        "-" if reading.statistic is None else f"{reading.statistic:.4g}",
        f"{reading.threshold:.4g}",
        "first rows" if reading.learned else "reference",
        state,
    )
