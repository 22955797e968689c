"""`driftgate calibrate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from analyzer.calibration import load_calibration
from analyzer.encoder_choice import choose_encoder
from analyzer.errors import AnalyzerError
from analyzer.model import locate_model
from driftgate.commands.options import JsonFlag
from driftgate.console_io import err, out, print_json, table
from driftgate.errors import DriftgateError
from driftgate.labelled import embed, read_labelled
from driftgate.settings import analyzer_settings, kafka_settings

if TYPE_CHECKING:
    from analyzer.recalibration import Recalibration

__all__ = ["calibrate"]


def calibrate(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="JSONL with `prompt` or `text`, and `domain`."
        ),
    ],
    out_dir: Annotated[
        Path, typer.Option(help="Where domains.yaml and calibration.json go.")
    ] = Path("calibration"),
    seed: Annotated[int, typer.Option(help="Of the cut and the clusters.")] = 1,
    json: JsonFlag = False,
) -> None:
    """Fit relevance to your own domains, and say how well it does on rows it has not seen.

    Use the result with DRIFTGATE_DOMAINS and DRIFTGATE_CALIBRATION.
    """
    from analyzer.recalibration import recalibrate

    data = read_labelled(file)
    if data.domains is None:
        raise DriftgateError(f"{file}: calibrating relevance needs a `domain` in each row")
    settings = analyzer_settings(os.environ, kafka_settings(os.environ))
    try:
        with err.status("loading the model"):
            encoder = choose_encoder(
                settings.encoder,
                locate_model(settings.model),
                settings.model_cache_dir,
                device=settings.device,
            )
        found = recalibrate(
            data.texts,
            data.domains,
            embed(data.texts, encoder),
            load_calibration(),
            data=f"{file.name}, {len(data.texts)} rows",
            seed=seed,
        )
    except AnalyzerError as error:
        raise DriftgateError(str(error)) from error
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "domains.yaml").write_bytes(msgspec.yaml.encode({"domains": found.prototypes}))
    (out_dir / "calibration.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(found.calibration), indent=1) + b"\n"
    )
    if json:
        report = msgspec.to_builtins(found)
        del report["prototypes"], report["calibration"]
        print_json(report)
    else:
        _show(found)
        err.print(f"written: {out_dir}/domains.yaml and calibration.json", markup=False)


def _show(found: Recalibration) -> None:
    rows = [
        ("domains", str(len(found.prototypes))),
        ("rows", f"{found.rows}, of which {found.held_apart} held apart"),
        ("AUC, on-topic against off-topic", f"{found.auc:.4f}"),
        ("mean relevance on-topic", f"{found.mean_on_topic:.3f}"),
        ("mean relevance off-topic", f"{found.mean_off_topic:.3f}"),
        ("Brier score", f"{found.brier:.4f}"),
        ("expected calibration error", f"{found.expected_calibration_error:.4f}"),
    ]
    out.print(table("relevance on rows held apart", ("what", "value"), rows))
    bins = [(f"{b.mean_score:.3f}", f"{b.share_on_topic:.3f}") for b in found.reliability]
    out.print(table("reliability", ("score said", "share on-topic"), bins))
