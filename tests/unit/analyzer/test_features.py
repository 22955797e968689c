"""Semantic scores from vectors, here of an encoder that only knows words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.encoder import HashingEncoder
from analyzer.features import WEIGHTS, InvalidVector, SemanticFeatures, split_parts
from schemas.prompts import PromptSubmitted, SemanticScores

ENCODER = HashingEncoder()
FEATURES = SemanticFeatures(ENCODER)


def score(prompt: PromptSubmitted, features: SemanticFeatures = FEATURES) -> SemanticScores:
    """The scores of a prompt."""
    return features.score_prompt(
        prompt, list(ENCODER.encode(features.texts_to_embed(prompt))), False
    )


def test_the_weights_are_shares() -> None:
    """Together they are one, so that overall is a mean."""
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    scores = score(PromptSubmitted(prompt="Write a CSS grid."))
    mean = sum(weight * getattr(scores, name) for name, weight in WEIGHTS.items())
    assert scores.overall == pytest.approx(mean)


def test_the_texts_to_embed_begin_with_the_prompt() -> None:
    """Then comes the context, then opening and closing; a blank context is none."""
    several = "My cat is ill. What can I do?"
    assert FEATURES.texts_to_embed(PromptSubmitted(prompt="One sentence.")) == ["One sentence."]
    assert FEATURES.texts_to_embed(PromptSubmitted(prompt=several, context="Cats")) == [
        several, "Cats", "My cat is ill.", "What can I do?",
    ]  # fmt: skip
    assert len(FEATURES.texts_to_embed(PromptSubmitted(prompt="One.", context=" \n"))) == 1
    alone = SemanticFeatures(ENCODER, part_words=0)
    assert alone.texts_to_embed(PromptSubmitted(prompt=several)) == [several]
    assert score(PromptSubmitted(prompt=several), alone).coherence > 0


@pytest.mark.parametrize(
    ("prompt", "domain"),
    [
        ("Add client-side form validation in JavaScript.", "web-development"),
        ("Explain overfitting and how regularisation prevents it.", "machine-learning"),
        ("Compare two groups with a t-test and report the confidence interval.", "data-analysis"),
        ("Cache expensive queries in Redis and invalidate them.", "backend"),
        ("Suggest a recipe for dinner with these ingredients.", "general"),
    ],
)
def test_the_nearest_domain_is_found_when_none_is_named(prompt: str, domain: str) -> None:
    """Also when an unknown one is named."""
    for named in (None, "astrology"):
        assert score(PromptSubmitted(prompt=prompt, domain=named)).domain == domain


def test_relevance_is_to_the_domain_that_is_named() -> None:
    """However it is spelled: the same prompt is less relevant to another domain."""
    text = "Cache expensive queries in Redis and invalidate them."
    right = score(PromptSubmitted(prompt=text, domain="Backend"))
    wrong = score(PromptSubmitted(prompt=text, domain="web_development"))
    assert (right.domain, wrong.domain) == ("backend", "web-development")
    assert right.relevance > wrong.relevance
    assert right.domain_cosine > wrong.domain_cosine


def test_relevance_is_to_the_context_when_there_is_one() -> None:
    """The domain is still named, its cosine unchanged."""
    text = "Which plans include phone support?"
    near = score(
        PromptSubmitted(prompt=text, context="Our plans: only Pro includes phone support.")
    )
    far = score(PromptSubmitted(prompt=text, context="The night train leaves Vienna at eight."))
    assert near.relevance > 0.6
    assert far.relevance < 0.4
    assert near.domain_cosine == far.domain_cosine


def test_a_batch_gives_what_each_prompt_gives_alone() -> None:
    """In the order of the prompts, whatever mixture of contexts and sentences they are."""
    prompts = [
        PromptSubmitted(prompt="Hello there."),
        PromptSubmitted(prompt="My cat is ill. What can I do?", context="Cats and dogs."),
        PromptSubmitted(prompt="Sort a list. Then reverse it. Print it.", domain="backend"),
        PromptSubmitted(prompt="Plan a trip.", context="Lisbon"),
    ]
    vectors = [list(ENCODER.encode(FEATURES.texts_to_embed(prompt))) for prompt in prompts]
    together = FEATURES.score_prompts(prompts, vectors, [True, False, True, False])
    assert [scores.cache_hit for scores in together] == [True, False, True, False]
    for prompt, scores in zip(prompts, together, strict=True):
        alone = score(prompt)
        assert scores.domain == alone.domain
        for name in (*WEIGHTS, "overall", "domain_cosine", "centroid_distance"):
            assert getattr(scores, name) == pytest.approx(getattr(alone, name), abs=1e-5)
    assert FEATURES.score_prompts([], [], []) == []


def test_an_opening_that_fits_its_closing_is_more_coherent() -> None:
    """The cosine between both counts."""
    fits = PromptSubmitted(
        prompt="The train to Vienna is late. When does the train to Vienna leave?"
    )
    mixed = PromptSubmitted(prompt="The train to Vienna is late. Purple onions need brown butter.")
    assert score(fits).coherence > score(mixed).coherence


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(384, dtype=np.float32),
        np.full(384, np.nan, dtype=np.float32),
        np.full(384, np.inf, dtype=np.float32),
        np.ones(384, dtype=np.float32),
        np.ones(12, dtype=np.float32),
    ],
)
def test_a_vector_that_no_encoder_may_give_is_refused(vector: np.ndarray) -> None:
    """Zero, not a number, infinite, not of unit norm, or of another shape; also among the parts."""
    with pytest.raises(InvalidVector):
        FEATURES.score_prompt(PromptSubmitted(prompt="hello"), [vector], False)
    several = PromptSubmitted(prompt="My cat is ill. What can I do?")
    vectors = [*ENCODER.encode(FEATURES.texts_to_embed(several))]
    with pytest.raises(InvalidVector):
        FEATURES.score_prompt(several, [*vectors[:-1], vector], False)


@given(st.text(min_size=1, max_size=200), st.none() | st.text(max_size=50))
def test_all_scores_are_in_range_for_any_text(text: str, context: str | None) -> None:
    """As the contract says."""
    scores = score(PromptSubmitted(prompt=text, context=context))
    for name in (*WEIGHTS, "overall"):
        assert 0.0 <= getattr(scores, name) <= 1.0
    assert -1.0 <= scores.domain_cosine <= 1.0
    assert 0.0 <= scores.centroid_distance <= 2.0


@given(st.text(max_size=300), st.integers(1, 30))
def test_parts_are_short_and_of_the_text(text: str, words: int) -> None:
    """Two or none, neither empty."""
    parts = split_parts(text, words)
    assert len(parts) in (0, 2)
    for part in parts:
        assert 1 <= len(part.split()) <= words
        assert set(part.split()) <= set("\n".join(text.splitlines()).split()) | set(part.split())


def test_it_is_known_whether_the_calibration_belongs_to_the_encoder() -> None:
    """A hashing encoder is not what it was made with."""
    assert not FEATURES.calibrated
