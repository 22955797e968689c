"""The proof that the enhancement helps: it must say yes, no, and "no proof" when that is true."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.encoder import HashingEncoder
from analyzer.labels import LabelledPrompts
from analyzer.study import (
    StudyError,
    agreement,
    compare_domains,
    compare_ratings,
)

ROWS = 400


def domains_data() -> tuple[LabelledPrompts, np.ndarray]:
    """Prompts whose words say little of their domain, and vectors that say it all."""
    chance = np.random.default_rng(1)
    names = ["a", "b", "c", "d"]
    domains = [names[n % 4] for n in range(ROWS)]
    words = [f"w{n}" for n in range(40)]
    texts = [
        " ".join(chance.choice(words, 6)) + (f" topic{d}" if chance.random() < 0.5 else "")
        for d in domains
    ]
    directions = np.eye(384)[:4]
    vectors = np.array([directions[names.index(d)] for d in domains])
    vectors += chance.normal(0, 0.02, vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return LabelledPrompts(texts=texts, domains=domains), vectors.astype(np.float32)


def test_vectors_that_know_the_domain_help() -> None:
    """Where the vectors know what the words do not, the improvement is certain and large."""
    data, vectors = domains_data()
    found = compare_domains(data, vectors, semantic_weight=0.3, folds=5, seed=1)
    assert found.passes
    assert found.improvement_low > 0.05
    assert found.p_value < 1e-6
    assert found.semantic_mean > 0.99
    assert len(found.by_fold) == 5


def test_vectors_of_noise_do_not_help() -> None:
    """Vectors that know nothing are no proof of anything."""
    data, _ = domains_data()
    noise = np.random.default_rng(2).normal(size=(ROWS, 384)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    found = compare_domains(data, noise, semantic_weight=0.3, folds=5, seed=1)
    assert not found.passes
    assert "no proof" in found.reason


def test_a_weight_of_zero_is_the_baseline() -> None:
    """Without a semantic share nothing changes, and that is not a success."""
    data, vectors = domains_data()
    found = compare_domains(data, vectors, semantic_weight=0.0, folds=5, seed=1)
    assert found.improvement == 0.0
    assert found.blended_mean == found.baseline_mean
    assert found.p_value == 1.0
    assert not found.passes


def ratings_data(raters: int) -> tuple[LabelledPrompts, np.ndarray]:
    """Prompts with a quality that raters see with some noise."""
    chance = np.random.default_rng(3)
    quality = chance.uniform(1, 5, ROWS)
    ratings = [list(np.round(q + chance.normal(0, 0.3, raters))) for q in quality]
    return LabelledPrompts(texts=["x"] * ROWS, ratings=ratings), quality


def test_scores_that_follow_the_ratings_help() -> None:
    """A semantic score that follows the raters beats a baseline that hardly does."""
    data, quality = ratings_data(3)
    noise = np.random.default_rng(4).uniform(0, 1, ROWS)
    found = compare_ratings(data, noise, (quality - 1) / 4, semantic_weight=0.5, folds=5, seed=1)
    assert found.passes
    assert found.effect_size > 0.3
    assert found.krippendorff_alpha is not None
    assert found.krippendorff_alpha > 0.8


def test_one_rater_agrees_with_nobody() -> None:
    """Agreement needs two raters, and ratings that differ."""
    assert agreement([[1.0], [2.0]]) is None
    assert agreement([[1.0, 1.0], [1.0, 1.0]]) is None
    assert agreement([[1.0, 1.0], [5.0, 5.0], [3.0, 3.0]]) == pytest.approx(1.0)
    assert agreement([[1.0, 5.0], [5.0, 1.0], [3.0, 3.0]]) < 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("domains", "words"),
    [(["a"] * 100, "at least two"), (["a"] * 98 + ["b"] * 2, "fewer than the 5 folds"),
     (["a", "b"] * 10, "20 labelled rows")],
)  # fmt: skip
def test_data_that_cannot_carry_a_verdict_is_refused(domains: list[str], words: str) -> None:
    """Too few rows or domains: an error with the number, not a verdict."""
    texts = [f"t{n}" for n in range(len(domains))]
    vectors = HashingEncoder().encode(texts)
    with pytest.raises(StudyError, match=words):
        compare_domains(
            LabelledPrompts(texts=texts, domains=domains),
            vectors,
            semantic_weight=0.3,
            folds=5,
            seed=1,
        )


def test_equal_ratings_teach_nothing() -> None:
    """Ratings that are all alike are refused."""
    data = LabelledPrompts(texts=["x"] * 60, ratings=[[3.0]] * 60)
    with pytest.raises(StudyError, match="all prompts have the mean rating 3"):
        compare_ratings(data, np.zeros(60), np.zeros(60), semantic_weight=0.3, folds=5, seed=1)
