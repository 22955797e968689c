"""Refitting relevance to labelled prompts of somebody's own."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from analyzer.calibration import load_calibration
from analyzer.encoder import HashingEncoder
from analyzer.recalibration import CalibrationDataError, recalibrate

WORDS = {
    "Kitchen": "bake roast knead simmer oven dough recipe pan".split(),
    "travel": "flight hotel visa airport luggage train ticket border".split(),
    "banking": "loan deposit interest account transfer fee card balance".split(),
}


def labelled(rows: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Sentences of a domain's words, with their domains."""
    chance = np.random.default_rng(seed)
    names = sorted(WORDS)
    domains = [names[n % len(names)] for n in range(rows)]
    texts = [" ".join(chance.choice(WORDS[domain], 5)) for domain in domains]
    return texts, domains


def fit(texts: list[str], domains: list[str]):  # type: ignore[no-untyped-def]
    """A fit with real vectors."""
    vectors = HashingEncoder().encode(texts)
    return recalibrate(texts, domains, vectors, load_calibration(), data="test", seed=3)


def test_domains_that_differ_are_told_apart_on_rows_held_apart() -> None:
    """On clear domains the fit separates on-topic from off-topic, and says so with its numbers."""
    texts, domains = labelled(600)
    found = fit(texts, domains)
    assert found.held_apart == 180
    assert found.auc > 0.99
    assert found.mean_on_topic > 0.9
    assert found.mean_off_topic < 0.1
    assert set(found.prototypes) == {"banking", "kitchen", "travel"}
    assert all(set(rows) <= set(texts) for rows in found.prototypes.values())
    assert found.calibration.relevance_domain.data == "test"
    assert found.calibration.coherence_parts == load_calibration().coherence_parts


def test_labels_without_meaning_are_found_out() -> None:
    """Labels that have nothing to do with the text give an AUC of a coin, not a good report."""
    texts, domains = labelled(900)
    np.random.default_rng(5).shuffle(domains)
    with contextlib.suppress(CalibrationDataError):
        # Refused, or seen through: both are honest.
        assert 0.4 < fit(texts, domains).auc < 0.6


@pytest.mark.parametrize(
    ("texts", "domains", "words"),
    [
        (["a b"] * 60, ["one"] * 60, "off-topic needs another one"),
        (["a b"] * 60, ["one"] * 50 + ["two"] * 10, "'two' has 10 rows"),
    ],
)
def test_too_little_data_is_refused(texts: list[str], domains: list[str], words: str) -> None:
    """One domain, or too few rows of one: the message says which."""
    with pytest.raises(CalibrationDataError, match=words):
        fit(texts, domains)


def test_the_same_seed_gives_the_same_fit() -> None:
    """A fit can be repeated."""
    texts, domains = labelled(300)
    assert fit(texts, domains) == fit(texts, domains)
