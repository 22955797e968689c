"""The rules: bounded, deterministic, and in the order that people would give."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.rules import WEIGHTS, facts, rule_scores

GOOD = (
    "Write a Python function `parse_price` that takes a string such as '12,50 EUR' and returns "
    "cents as an integer. Raise ValueError when the currency is missing, because the import must "
    "not go on. Include three tests."
)


def test_the_weights_are_shares() -> None:
    """Together they are one, so that overall is a mean."""
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("better", "worse", "score"),
    [
        (GOOD, "do something with prices maybe", "overall"),
        ("Compare A with B in a table.", "compare a with b in a table", "structure"),
        ("Sort the list by date.", "Do the thing with stuff somehow.", "clarity"),
        ("Plan 3 days in Lisbon under 600 euros.", "Plan some days somewhere.", "specificity"),
        ("Summarise this report in five bullet points.", "This report was long.", "actionability"),
        (GOOD, "Write code.", "completeness"),
    ],
)
def test_the_better_prompt_has_the_higher_score(better: str, worse: str, score: str) -> None:
    """Each score tells a prompt that has its quality from one that has not."""
    assert getattr(rule_scores(better), score) > getattr(rule_scores(worse), score) + 0.05


def test_overall_is_the_weighted_mean() -> None:
    """So that a score can be explained by hand."""
    scores = rule_scores(GOOD)
    mean = sum(weight * getattr(scores, name) for name, weight in WEIGHTS.items())
    assert scores.overall == pytest.approx(mean)


def test_the_facts_are_counts_of_the_text() -> None:
    """A spot check of what is counted."""
    found = facts('Please list 2 things:\n- "one"\n- two because it\'s short.')
    assert (found.numbers, found.list_items, found.quoted, found.vague) == (1, 2, 2, 1)
    assert (found.starts_with_verb, found.ends, found.reasons) == (True, True, 1)


def test_a_text_without_words_scores_nothing() -> None:
    """There is nothing to praise."""
    assert rule_scores("!!! ...").overall == 0.0


@given(st.text(max_size=500))
def test_scores_stay_in_the_unit_interval(text: str) -> None:
    """Whatever the text is, and the same every time."""
    scores = rule_scores(text)
    for name in (*WEIGHTS, "overall"):
        assert 0.0 <= getattr(scores, name) <= 1.0
    assert rule_scores(text) == scores


@pytest.mark.parametrize(
    "unit", ["a", "(a ", "  - ", "<", "\n", "A b, ", "x.y/", "1) ", " \n", "a_b", '"', "a. "]
)
def test_the_cost_is_linear_in_the_length(unit: str) -> None:
    """Four times the text takes nowhere near sixteen times as long: no pattern backtracks."""

    def seconds(chars: int) -> float:
        text = (unit * chars)[:chars]
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            rule_scores(text)
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(20_000) < 12 * seconds(5_000) + 0.05
