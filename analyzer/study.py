"""Does the enhancement help? The baseline against the blend on labelled prompts (M10, M11, M66).

Cross-validated: everything that is learned is learned on the other folds, and each prompt is judged
once, by a model that has not seen it. The comparison is paired, prompt by prompt.

Two kinds of label are understood. A *domain*: which one is the prompt about? The baseline answers
by the words that the prompt shares with a domain's other prompts, the enhancement by blending that
with the cosine to the domain's mean vector, at the deployment's weight. A *rating*: how good is the
prompt? Both answer with their analysis score, mapped to the ratings' scale by a monotone fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import krippendorff
import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedKFold

from analyzer.errors import AnalyzerError
from analyzer.labels import LabelledPrompts

__all__ = ["Comparison", "StudyError", "agreement", "compare_domains",
           "compare_ratings"]  # fmt: skip

Floats = npt.NDArray[np.float64]

MIN_ROWS = 50
"""Fewer cannot carry a decision in five folds."""
_BOOTSTRAP_ROUNDS = 2000
_CONFIDENCE = 0.95


class StudyError(AnalyzerError):
    """Data that no comparison can be made on; the message says what is missing."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on the enhancement, with the numbers behind it."""

    label: Literal["domain", "rating"]
    measure: str
    """What the means are of; more is better."""
    rows: int
    folds: int
    semantic_weight: float
    baseline_mean: float
    semantic_mean: float
    """Of the enhancement alone, without the baseline."""
    blended_mean: float
    """Of what is served."""
    improvement: float
    """Relative: 0.05 is 5 % better than the baseline."""
    improvement_low: float
    improvement_high: float
    """95 % bootstrap interval."""
    p_value: float
    """Of the paired test that the blend is not better."""
    test: str
    effect_size: float
    effect: str
    """What the effect size is."""
    by_fold: list[float]
    """The relative improvement in each fold."""
    krippendorff_alpha: float | None
    """Agreement of the raters; None where there are fewer than two."""
    passes: bool
    """The improvement is certainly above 0: green may start."""
    reason: str


def compare_domains(
    data: LabelledPrompts,
    vectors: npt.NDArray[np.float32],
    *,
    semantic_weight: float,
    folds: int,
    seed: int,
) -> Comparison:
    """The comparison on domains.

    Args:
        data: with domains, at least two, each on at least as many prompts as there are folds.
        vectors: of the texts, unit rows, shape (n, dimension).
        semantic_weight: share of the enhancement in the blend, in [0, 1].
        folds: of the cross-validation, at least 2.
        seed: of the folds and the bootstrap.

    Raises:
        StudyError: too few prompts or domains.
    """
    if data.domains is None:
        raise StudyError("the rows have no domain")
    names, labels = np.unique(np.array(data.domains), return_inverse=True)
    _check_rows(len(data.texts))
    if len(names) < 2:
        raise StudyError(f"all rows have the domain {names[0]!r}: at least two are needed")
    rarest = int(np.bincount(labels).min())
    if rarest < folds:
        raise StudyError(
            f"domain {names[np.bincount(labels).argmin()]!r} has {rarest} rows, fewer than the "
            f"{folds} folds"
        )
    right = {way: np.zeros(len(labels)) for way in ("baseline", "semantic", "blended")}
    fold_of = np.zeros(len(labels), dtype=int)
    for number, (train, test) in enumerate(_folds(labels, folds, seed)):
        fold_of[test] = number
        lexical = _lexical_similarity(data.texts, labels, train, test, len(names))
        semantic = _semantic_similarity(vectors, labels, train, test, len(names))
        blended = (1 - semantic_weight) * lexical + semantic_weight * semantic
        for way, scores in (("baseline", lexical), ("semantic", semantic), ("blended", blended)):
            right[way][test] = scores.argmax(axis=1) == labels[test]
    gain = right["blended"] - right["baseline"]
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    # McNemar's exact test: among the prompts on which the two differ, wins are a coin's throws.
    p_value = (
        float(stats.binomtest(wins, wins + losses, alternative="greater").pvalue)
        if wins + losses
        else 1.0
    )
    before, after = right["baseline"].mean(), right["blended"].mean()
    effect = 2 * np.arcsin(np.sqrt(after)) - 2 * np.arcsin(np.sqrt(before))
    return _conclude(
        label="domain",
        measure="accuracy of the domain",
        test=f"McNemar, exact: {wins} prompts won, {losses} lost",
        effect_size=float(effect),
        effect="Cohen's h",
        p_value=p_value,
        semantic_weight=semantic_weight,
        values=right,
        fold_of=fold_of,
        seed=seed,
        alpha=None,
    )


def compare_ratings(
    data: LabelledPrompts,
    baseline: Floats,
    semantic: Floats,
    *,
    semantic_weight: float,
    folds: int,
    seed: int,
) -> Comparison:
    """The comparison on ratings: closeness of the predicted to the mean rating.

    Args:
        data: with ratings.
        baseline: the rules score of each prompt, shape (n,).
        semantic: the semantic score of each prompt, shape (n,).
        semantic_weight: share of the semantic score in the blend, in [0, 1].
        folds: of the cross-validation, at least 2.
        seed: of the folds and the bootstrap.

    Raises:
        StudyError: too few prompts, or all ratings alike.
    """
    if data.ratings is None:
        raise StudyError("the rows have no rating")
    _check_rows(len(data.texts))
    wanted = np.array([np.mean(each) for each in data.ratings])
    spread = float(wanted.max() - wanted.min())
    if spread == 0:
        raise StudyError(f"all prompts have the mean rating {wanted[0]:g}: nothing can be learned")
    # Quartiles as strata, so that each fold has good and bad prompts.
    strata = np.digitize(wanted, np.unique(np.quantile(wanted, (0.25, 0.5, 0.75))))
    blended = (1 - semantic_weight) * baseline + semantic_weight * semantic
    closeness = {way: np.zeros(len(wanted)) for way in ("baseline", "semantic", "blended")}
    fold_of = np.zeros(len(wanted), dtype=int)
    for number, (train, test) in enumerate(_folds(strata, folds, seed)):
        fold_of[test] = number
        for way, scores in (("baseline", baseline), ("semantic", semantic), ("blended", blended)):
            fit = IsotonicRegression(out_of_bounds="clip").fit(scores[train], wanted[train])
            error = np.abs(fit.predict(scores[test]) - wanted[test])
            closeness[way][test] = 1 - error / spread
    gain = closeness["blended"] - closeness["baseline"]
    p_value = float(stats.wilcoxon(gain, alternative="greater").pvalue) if gain.any() else 1.0
    deviation = float(gain.std(ddof=1))
    return _conclude(
        label="rating",
        measure="1 - absolute error of the predicted rating / range of the ratings",
        test="Wilcoxon signed-rank",
        effect_size=float(gain.mean()) / deviation if deviation else 0.0,
        effect="Cohen's d of the paired differences",
        p_value=p_value,
        semantic_weight=semantic_weight,
        values=closeness,
        fold_of=fold_of,
        seed=seed,
        alpha=agreement(data.ratings),
    )


def agreement(ratings: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of interval ratings, at most 1; None without two raters who differ.

    Source: Krippendorff, Content Analysis, 2004, chapter 11.
    """
    raters = max(len(each) for each in ratings)
    if raters < 2 or len({value for each in ratings for value in each}) < 2:
        return None
    table = np.full((raters, len(ratings)), np.nan)
    for column, each in enumerate(ratings):
        table[: len(each), column] = each
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="interval"))


def _check_rows(rows: int) -> None:
    if rows < MIN_ROWS:
        raise StudyError(f"{rows} labelled rows: at least {MIN_ROWS} are needed for a verdict")


def _folds(labels: npt.NDArray[Any], folds: int, seed: int) -> Any:
    return StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        np.zeros(len(labels)), labels
    )


def _lexical_similarity(
    texts: list[str],
    labels: npt.NDArray[np.intp],
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    domains: int,
) -> Floats:
    """Cosine of TF-IDF words to the mean of each domain; shape (test, domains)."""
    words = TfidfVectorizer(sublinear_tf=True)
    known = words.fit_transform([texts[i] for i in train])
    asked = words.transform([texts[i] for i in test])
    membership = np.zeros((domains, len(train)))
    membership[labels[train], np.arange(len(train))] = 1
    centres = _unit(np.asarray((known.T @ membership.T).T))
    return np.asarray(asked @ centres.T)


def _semantic_similarity(
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[np.intp],
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    domains: int,
) -> Floats:
    """Cosine to the mean vector of each domain; shape (test, domains)."""
    centres = np.stack([vectors[train][labels[train] == d].mean(axis=0) for d in range(domains)])
    return np.asarray(vectors[test] @ _unit(centres.astype(np.float64)).T)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _conclude(
    *,
    values: dict[str, Floats],
    fold_of: npt.NDArray[np.intp],
    seed: int,
    alpha: float | None,
    p_value: float,
    **fields: Any,
) -> Comparison:
    before, after = values["baseline"], values["blended"]
    low, high = _bootstrap(before, after, seed)
    improvement = _relative(float(before.mean()), float(after.mean()))
    passes = low > 0 and p_value < 1 - _CONFIDENCE
    folds = sorted(set(fold_of.tolist()))
    return Comparison(
        rows=len(before),
        folds=len(folds),
        baseline_mean=float(before.mean()),
        semantic_mean=float(values["semantic"].mean()),
        blended_mean=float(after.mean()),
        improvement=improvement,
        improvement_low=low,
        improvement_high=high,
        p_value=p_value,
        by_fold=[
            _relative(float(before[fold_of == f].mean()), float(after[fold_of == f].mean()))
            for f in folds
        ],
        krippendorff_alpha=alpha,
        passes=passes,
        reason=(
            f"{improvement:+.1%} over the baseline, 95 % interval {low:+.1%} to {high:+.1%}, "
            f"p = {p_value:.2g}: "
            + ("the enhancement helps" if passes else "no proof that the enhancement helps")
        ),
        **fields,
    )


def _relative(before: float, after: float) -> float:
    return after / before - 1 if before else float(after > 0)


def _bootstrap(before: Floats, after: Floats, seed: int) -> tuple[float, float]:
    """Percentile interval of the relative improvement of the means, prompts drawn in pairs."""

    def statistic(a: Floats, b: Floats, axis: int) -> Floats:
        return np.asarray(b.mean(axis=axis) / np.maximum(a.mean(axis=axis), 1e-12) - 1)

    found = stats.bootstrap(
        (before, after),
        statistic,
        n_resamples=_BOOTSTRAP_ROUNDS,
        batch=100,
        paired=True,
        vectorized=True,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
