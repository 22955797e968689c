"""Fits relevance to somebody's own prompts: prototypes of their domains, and the curve over them.

The labelled prompts are cut three ways: prototypes are chosen on one part, the curve is fitted on a
second, and what is reported is measured on the third, which neither has seen. On-topic is a prompt
against its own domain, off-topic the same prompt against another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.calibration import calibration_curve
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from analyzer.calibration import Calibration, Logistic
from analyzer.domains import normalise_name
from analyzer.errors import AnalyzerError
from analyzer.features import NEAREST

__all__ = ["CalibrationDataError", "Recalibration", "ReliabilityBin", "recalibrate"]

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

PROTOTYPES = 40
"""A domain: as many kinds of request as it may have."""
MIN_ROWS_A_DOMAIN = 30
_PARTS = (0.5, 0.2)
"""Share of the rows that prototypes are chosen on, and that the curve is fitted on."""
_BINS = 10


class CalibrationDataError(AnalyzerError):
    """Labelled data that nothing can be fitted on; the message says what is missing."""


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Prompts whose scores are alike: what was said, and what was true."""

    mean_score: float
    share_on_topic: float


class Recalibration(msgspec.Struct, frozen=True, kw_only=True):
    """The fit, and how well it does on rows that it has not seen."""

    prototypes: dict[str, list[str]]
    """Sentences by domain, in the form of a domains file."""
    calibration: Calibration
    """The one that ships, with the new curve of relevance."""
    rows: int
    held_apart: int
    auc: float
    """Chance that an on-topic prompt scores above an off-topic one."""
    brier: float
    """Mean square of score - truth; 0.25 is what a coin gets."""
    expected_calibration_error: float
    """Mean distance between what was said and what was true."""
    mean_on_topic: float
    mean_off_topic: float
    reliability: list[ReliabilityBin]


def recalibrate(
    texts: Sequence[str],
    domains: Sequence[str],
    vectors: Vectors,
    shipped: Calibration,
    *,
    data: str,
    seed: int,
) -> Recalibration:
    """Choose prototypes, fit the curve, and measure both.

    Args:
        texts: the prompts.
        domains: the domain of each.
        vectors: of the texts, unit rows, shape (n, dimension).
        shipped: what everything but relevance is taken from.
        data: what to call the data in the parameters.
        seed: of the cut, the clusters and the off-topic pairs.

    Raises:
        CalibrationDataError: fewer than two domains, or too few rows of one.
    """
    names = sorted({normalise_name(domain) for domain in domains})
    labels = np.array([names.index(normalise_name(domain)) for domain in domains])
    if len(names) < 2:
        raise CalibrationDataError(f"only the domain {names[0]!r}: off-topic needs another one")
    sizes = np.bincount(labels)
    if sizes.min() < MIN_ROWS_A_DOMAIN:
        raise CalibrationDataError(
            f"domain {names[int(sizes.argmin())]!r} has {sizes.min()} rows, fewer than "
            f"{MIN_ROWS_A_DOMAIN}"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    first, second = (int(len(order) * share) for share in np.cumsum(_PARTS))
    chosen_on, fitted_on, held_apart = order[:first], order[first:second], order[second:]
    prototypes = {
        name: _prototypes(chosen_on[labels[chosen_on] == number], vectors, seed)
        for number, name in enumerate(names)
    }
    blocks = [vectors[rows] for rows in prototypes.values()]
    raw, truth = _pairs(fitted_on, labels, vectors, blocks, seed)
    fit = LogisticRegression(C=1e3).fit(raw[:, None], truth)
    curve = Logistic(
        inputs=shipped.relevance_domain.inputs,
        weights=[round(float(fit.coef_[0, 0]), 4)],
        offset=round(float(fit.intercept_[0]), 4),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        prior=0.5,
        auc=0.0,
        brier=0.0,
        mean_positive=0.0,
        mean_negative=0.0,
        data=data,
    )
    if curve.weights[0] <= 0:
        raise CalibrationDataError(
            "prompts are no nearer to their own domain than to others: are the labels right?"
        )
    raw, truth = _pairs(held_apart, labels, vectors, blocks, seed + 1)
    scores = curve.apply(raw)
    said, true = calibration_curve(truth, scores, n_bins=_BINS)[::-1]
    counts = np.histogram(scores, bins=np.linspace(0, 1, _BINS + 1))[0]
    curve = msgspec.structs.replace(
        curve,
        auc=round(float(roc_auc_score(truth, scores)), 4),
        brier=round(float(brier_score_loss(truth, scores)), 4),
        mean_positive=round(float(scores[truth].mean()), 4),
        mean_negative=round(float(scores[~truth].mean()), 4),
    )
    return Recalibration(
        prototypes={name: [texts[i] for i in rows] for name, rows in prototypes.items()},
        calibration=msgspec.structs.replace(shipped, relevance_domain=curve),
        rows=len(labels),
        held_apart=len(held_apart),
        auc=curve.auc,
        brier=curve.brier,
        expected_calibration_error=round(
            float(np.average(np.abs(said - true), weights=counts[counts > 0])), 4
        ),
        mean_on_topic=curve.mean_positive,
        mean_off_topic=curve.mean_negative,
        reliability=[
            ReliabilityBin(round(float(s), 4), round(float(t), 4))
            for s, t in zip(said, true, strict=True)
        ],
    )


def _prototypes(rows: npt.NDArray[np.intp], vectors: Vectors, seed: int) -> npt.NDArray[np.intp]:
    """The row nearest to the middle of each cluster of a domain's prompts."""
    clusters = min(PROTOTYPES, max(len(rows) // 3, NEAREST))
    means = KMeans(clusters, n_init=1, random_state=seed).fit(vectors[rows]).cluster_centers_
    nearest = (vectors[rows] @ means.T).argmax(axis=0)
    return np.asarray(rows[np.unique(nearest)])


def _pairs(
    rows: npt.NDArray[np.intp],
    labels: npt.NDArray[np.intp],
    vectors: Vectors,
    blocks: list[Vectors],
    seed: int,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Raw relevance of each row to its own domain and to another one, and which is which."""
    raw = np.stack(
        [np.sort(vectors[rows] @ block.T, axis=1)[:, -NEAREST:].mean(axis=1) for block in blocks],
        axis=1,
    )
    own = labels[rows]
    shift = np.random.default_rng(seed).integers(1, len(blocks), len(rows))
    other = (own + shift) % len(blocks)
    index = np.arange(len(rows))
    return (
        np.concatenate([raw[index, own], raw[index, other]]).astype(np.float64),
        np.concatenate([np.ones(len(rows), bool), np.zeros(len(rows), bool)]),
    )
