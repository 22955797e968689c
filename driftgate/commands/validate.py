"""`driftgate validate`."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer

from analyzer.errors import AnalyzerError
from analyzer.labels import LabelledPrompts
from analyzer.loading import load_model
from analyzer.rules import rule_scores
from analyzer.semantic import Model
from driftgate.commands.options import JsonFlag
from driftgate.console_io import err, out, print_json, table
from driftgate.errors import DriftgateError, Exit
from driftgate.labelled import embed, in_batches, read_labelled
from driftgate.settings import analyzer_settings, kafka_settings
from schemas.prompts import PromptSubmitted

if TYPE_CHECKING:
    from analyzer.study import Comparison

__all__ = ["validate"]


def validate(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSONL with `prompt` or `text`, and `rating` (a number, or a list of one a "
            "rater) or `domain`.",
        ),
    ],
    weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the semantic half in the blend.")
    ] = 0.3,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the folds and the bootstrap.")] = 1,
    report: Annotated[Path, typer.Option(help="Where the JSON report goes.")] = Path(
        "validation-report.json"
    ),
    json: JsonFlag = False,
) -> None:
    """Test on labelled prompts whether the enhancement helps: may green start at all?

    Exit code 0 when it certainly does, 1 when there is no proof.
    """
    data = read_labelled(file)
    settings = analyzer_settings(os.environ, kafka_settings(os.environ))
    try:
        with err.status("loading the model"):
            model = load_model(settings)
        found = _compare(data, model, weight, folds, seed)
    except AnalyzerError as error:
        raise DriftgateError(str(error)) from error
    contents = {"file": file.name, "encoder": model.encoder.fingerprint, "seed": seed,
                "comparison": msgspec.to_builtins(found)}  # fmt: skip
    report.write_text(json_module.dumps(contents, indent=1) + "\n", encoding="utf-8")
    if json:
        print_json(contents)
    else:
        _show(found)
        err.print(f"report: {report}", markup=False)
    if not found.passes:
        raise typer.Exit(Exit.FAILED)


def _compare(
    data: LabelledPrompts, model: Model, weight: float, folds: int, seed: int
) -> Comparison:
    from analyzer.study import compare_domains, compare_ratings

    if data.domains is not None:
        vectors = embed(data.texts, model.encoder)
        return compare_domains(data, vectors, semantic_weight=weight, folds=folds, seed=seed)
    baseline = np.array([rule_scores(text).overall for text in data.texts])
    semantic = _semantic_scores(data.texts, model)
    return compare_ratings(data, baseline, semantic, semantic_weight=weight, folds=folds, seed=seed)


def _semantic_scores(texts: list[str], model: Model) -> Any:
    scores: list[float] = []
    for batch in in_batches(texts):
        prompts = [PromptSubmitted(prompt=text) for text in batch]
        several = [model.scorer.texts_to_embed(prompt) for prompt in prompts]
        flat = model.encoder.encode([text for each in several for text in each])
        ends = np.cumsum([len(each) for each in several])
        vectors = [list(rows) for rows in np.split(flat, ends[:-1])]
        found = model.scorer.score_prompts(prompts, vectors, [False] * len(prompts))
        scores += [one.overall for one in found]
    return np.array(scores)


def _show(found: Comparison) -> None:
    rows = [
        (found.measure, "baseline (rules)", f"{found.baseline_mean:.4f}"),
        ("", "semantic alone", f"{found.semantic_mean:.4f}"),
        ("", f"blended at {found.semantic_weight:g}", f"{found.blended_mean:.4f}"),
        ("improvement", found.test, f"{found.improvement:+.2%}"),
        (
            "",
            "95 % bootstrap interval",
            f"{found.improvement_low:+.2%} to {found.improvement_high:+.2%}",
        ),
        ("", f"p ({found.folds} folds, {found.rows} rows)", f"{found.p_value:.3g}"),
        ("effect size", found.effect, f"{found.effect_size:.3f}"),
    ]
    if found.krippendorff_alpha is not None:
        rows.append(
            ("agreement of raters", "Krippendorff's alpha", f"{found.krippendorff_alpha:.3f}")
        )
    out.print(table("baseline against semantic", ("what", "how", "value"), rows))
    out.print(found.reason, markup=False)
