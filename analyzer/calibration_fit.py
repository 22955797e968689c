"""Fit the calibration: ``python -m analyzer.calibration_fit`` writes ``calibration.json``.

The labelled texts are our own, in ``calibration_data.jsonl``: prompts that claim a domain or have a
context (``relevant`` says whether rightly), and prompts of several sentences. What is incoherent is
made from them: the same number of words drawn from all texts, and openings with another's closing.
Every number is the same in every run.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from analyzer.calibration import BUILT_IN, Calibration, Logistic
from analyzer.domains import Reference, load_domains
from analyzer.encoder import Encoder, SentenceTransformerEncoder
from analyzer.features import NEAREST, split_parts
from analyzer.model import locate_model

__all__ = ["DATA", "fit_calibration", "fit_logistic"]

DATA = Path(__file__).with_name("calibration_data.jsonl")

Floats = npt.NDArray[np.float64]

_PRIOR_RELEVANT = 0.5
_PRIOR_COHERENT = 0.75
"""Few real prompts are incoherent. Relevance has no such prior: it depends on the producer."""
_SALADS = 3
_PROBE_PENALTY = 0.2
_CURVE_PENALTY = 1e-3
_FOLDS = 5


def fit_calibration(
    encoder: Encoder, reference: Reference, rows: Sequence[dict[str, Any]]
) -> Calibration:
    """All parameters.

    Args:
        encoder: the reference encoder.
        reference: domains and contrasts.
        rows: labelled texts, as in :data:`DATA`.
    """
    data = f"{DATA.name}, written for this project, {len(rows)} rows"
    claimed = [row for row in rows if "domain" in row]
    vectors = encoder.encode([row["text"] for row in claimed]).astype(np.float64)
    prototypes = {name: encoder.encode(each) for name, each in reference.domains.items()}
    nearest = np.array(
        [
            np.sort(prototypes[row["domain"]] @ vector)[-NEAREST:].mean()
            for row, vector in zip(claimed, vectors, strict=True)
        ]
    )
    in_context = [row for row in rows if "context" in row]
    to_context = np.einsum(
        "ij,ij->i",
        encoder.encode([row["text"] for row in in_context]),
        encoder.encode([row["context"] for row in in_context]),
    ).astype(np.float64)
    probe, single, parts = _fit_coherence(encoder, reference, rows, data)
    return Calibration(
        version=1,
        model_sha256=encoder.fingerprint.partition(":")[0],
        relevance_domain=_curve(
            ["mean cosine to the 3 nearest prototypes"],
            nearest[:, None],
            np.array([row["relevant"] for row in claimed]),
            _PRIOR_RELEVANT,
            f"{data}: those that claim a domain",
        ),
        relevance_context=_curve(
            ["cosine to the context"],
            to_context[:, None],
            np.array([row["relevant"] for row in in_context]),
            _PRIOR_RELEVANT,
            f"{data}: those with a context",
        ),
        coherence_single=single,
        coherence_parts=parts,
        probe=[round(float(value), 4) for value in probe],
    )


def fit_logistic(
    inputs: Floats, labels: npt.NDArray[np.bool_], penalty: float, prior: float = 0.5
) -> Floats:
    """Weights and offset of a logistic regression with an L2 penalty, by Newton's method.

    Both classes weigh alike; the offset is then moved to the prior.

    Args:
        inputs: shape (n, k).
        labels: shape (n,), with both values present.
        penalty: on the squared weights, not on the offset.
        prior: share of positives that the offset shall stand for.

    Returns:
        Shape (k + 1,), the offset last.
    """
    design = np.column_stack([inputs, np.ones(len(inputs))])
    weight = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(labels)
    ridge = np.diag([penalty] * inputs.shape[1] + [1e-9])
    found = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weight * (chance - labels)) + ridge @ found
        curvature = (design * (weight * chance * (1 - chance))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        found -= step
        if np.abs(step).max() < 1e-9:
            break
    found[-1] += np.log(prior / (1 - prior))
    return np.asarray(found)


def _fit_coherence(
    encoder: Encoder, reference: Reference, rows: Sequence[dict[str, Any]], data: str
) -> tuple[Floats, Logistic, Logistic]:
    """The probe, and the curves over it: fitted to values of folds that the probe has not seen."""
    choice = random.Random(20240501)  # noqa: S311  # to be repeated, not to be secret
    good = [row["text"] for row in rows if row.get("relevant", True)]
    good += [sentence for each in reference.domains.values() for sentence in each]
    good = list(dict.fromkeys(good))
    # Many real prompts have no capitals and no stops; the model sees no capitals anyway.
    good += [text.rstrip(".?!") for text in good]
    words = [word for text in good for word in text.split()]
    salads = [
        " ".join(choice.choices(words, k=len(text.split())))
        for text in good
        for _ in range(_SALADS)
    ]
    labels = np.array([True] * len(good) + [False] * len(salads))
    vectors = encoder.encode(good + salads).astype(np.float64)
    probe = fit_logistic(vectors, labels, _PROBE_PENALTY)
    apart = _held_apart(
        vectors, labels, lambda x, y: fit_logistic(x, y, _PROBE_PENALTY), groups=len(good) // 2
    )
    single = _curve(
        ["probe"],
        apart[:, None],
        labels,
        _PRIOR_COHERENT,
        f"{data}: those that are relevant and the prototypes, with and without a final stop; "
        f"against {_SALADS} times as many of mixed words",
    )

    several = [text for text in good[: len(good) // 2] if split_parts(text)]
    halves = [split_parts(text, 1_000) for text in several]
    mixed = [
        f"{opening} {halves[(place + shift) % len(halves)][1]}"
        for shift in (1, 5, 7, 11)
        for place, (opening, _) in enumerate(halves)
    ]
    texts = several + mixed
    part_vectors = encoder.encode([part for text in texts for part in split_parts(text)])
    cosine = np.einsum("ij,ij->i", part_vectors[::2], part_vectors[1::2]).astype(np.float64)
    value = encoder.encode(texts).astype(np.float64) @ probe[:-1] + probe[-1]
    parts = _curve(
        ["probe", "cosine of opening and closing"],
        np.column_stack([value, cosine]),
        np.array([True] * len(several) + [False] * len(mixed)),
        _PRIOR_COHERENT,
        f"{data}: those of several sentences; against openings with another's closing",
    )
    return probe, single, parts


def _curve(
    names: list[str], inputs: Floats, labels: npt.NDArray[np.bool_], prior: float, data: str
) -> Logistic:
    found = fit_logistic(inputs, labels, _CURVE_PENALTY * len(labels), prior)
    if (found[:-1] < 0).any():  # not monotone: that input has nothing to say
        keep = found[:-1] > 0
        some = fit_logistic(inputs[:, keep], labels, _CURVE_PENALTY * len(labels), prior)
        found = np.zeros(len(names) + 1)
        found[:-1][keep], found[-1] = some[:-1], some[-1]
    apart = _held_apart(
        inputs, labels, lambda x, y: fit_logistic(x, y, _CURVE_PENALTY * len(y), prior)
    )
    score = 1.0 / (1.0 + np.exp(-apart))
    even = 1.0 / (1.0 + np.exp(-(apart - np.log(prior / (1 - prior)))))
    error = (even - labels) ** 2
    return Logistic(
        inputs=names,
        weights=[round(float(value), 4) for value in found[:-1]],
        offset=round(float(found[-1]), 4),
        positives=int(labels.sum()),
        negatives=int((~labels).sum()),
        prior=prior,
        auc=round(_auc(apart[labels], apart[~labels]), 4),
        brier=round(float((error[labels].mean() + error[~labels].mean()) / 2), 4),
        mean_positive=round(float(score[labels].mean()), 4),
        mean_negative=round(float(score[~labels].mean()), 4),
        data=data,
    )


def _held_apart(
    inputs: Floats,
    labels: npt.NDArray[np.bool_],
    fit: Callable[[Floats, npt.NDArray[np.bool_]], Floats],
    groups: int | None = None,
) -> Floats:
    """The linear values of each row under a fit without its fold.

    Args:
        inputs: shape (n, k).
        labels: shape (n,).
        fit: gives weights and offset.
        groups: rows that are equal modulo this number are in the same fold.
    """
    values = np.zeros(len(labels))
    folds = (np.arange(len(labels)) % (groups or len(labels))) * 7919 % _FOLDS
    for fold in range(_FOLDS):
        out = folds == fold
        found = fit(inputs[~out], labels[~out])
        values[out] = inputs[out] @ found[:-1] + found[-1]
    return values


def _auc(positives: Floats, negatives: Floats) -> float:
    pairs = positives[:, None] - negatives[None, :]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def _main() -> None:
    encoder = SentenceTransformerEncoder(locate_model())
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    found = fit_calibration(encoder, load_domains(), rows)
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    BUILT_IN.write_bytes(encoded + b"\n")
    for name in ("relevance_domain", "relevance_context", "coherence_single", "coherence_parts"):
        curve: Logistic = getattr(found, name)
        sys.stdout.write(
            f"{name}: {curve.positives} + {curve.negatives} texts, AUC {curve.auc}, Brier "
            f"{curve.brier}, means {curve.mean_positive} and {curve.mean_negative}\n"
        )


if __name__ == "__main__":
    _main()
