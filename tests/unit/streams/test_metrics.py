"""Which rows a metric is about, and what a gate is tested on."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.log import RowFlag, Rows
from schemas.policy import Metric
from streams.metrics import gate_samples, metric_samples
from tests.support.folding import gate, rows_of

PLAIN, REJECTED = RowFlag(0), RowFlag.REJECTED
BROKEN, LOST = RowFlag.SYSTEM_ERROR, RowFlag.SYSTEM_ERROR | RowFlag.REJECTED
SEMANTIC, FALLBACK = RowFlag.SEMANTIC, RowFlag.FALLBACK
LOOKUP, HIT = RowFlag.CACHE_LOOKUP, RowFlag.CACHE_LOOKUP | RowFlag.CACHE_HIT
FLAGS = [PLAIN, REJECTED, BROKEN, LOST, SEMANTIC, FALLBACK, LOOKUP, HIT]


def judged(metric: Metric) -> dict[RowFlag, float]:
    """The value of each kind of row that the metric has one for."""
    rows = Rows(**rows_of(range(len(FLAGS)), flags=FLAGS, score=0.5, coherence=0.25))
    values, valid = metric_samples(metric, rows)
    assert values.dtype == np.float64
    return {f: v for f, v, ok in zip(FLAGS, values.tolist(), valid, strict=True) if ok}


def test_a_rejected_prompt_has_neither_time_nor_score() -> None:
    """Latency and score are of accepted prompts, also of those that an error hit."""
    expected = {PLAIN, BROKEN, SEMANTIC, FALLBACK, LOOKUP, HIT}
    assert judged(Metric.PROCESSING_SECONDS).keys() == expected
    assert judged(Metric.SCORE) == dict.fromkeys(expected, 0.5)


def test_a_rejection_is_a_system_error_only_when_we_failed() -> None:
    """A bad prompt is nobody's failure; one that went to the dead letters by our fault is ours."""
    found = judged(Metric.SYSTEM_ERROR)
    assert REJECTED not in found
    assert {f for f, bad in found.items() if bad} == {BROKEN, LOST}
    assert len(found) == 7


def test_errors_are_of_both_kinds() -> None:
    """The error rate counts failures of the system and of the semantic half."""
    found = judged(Metric.ERROR)
    assert REJECTED not in found
    assert {f for f, bad in found.items() if bad} == {BROKEN, LOST, FALLBACK}


def test_semantic_errors_are_a_share_of_semantic_attempts() -> None:
    """Rows that never were to be analysed by the model neither help nor harm its rate."""
    assert judged(Metric.SEMANTIC_ERROR) == {SEMANTIC: 0.0, FALLBACK: 1.0}


def test_cache_hits_are_a_share_of_lookups() -> None:
    """A prompt that asked no cache is no miss."""
    assert judged(Metric.CACHE_HIT) == {LOOKUP: 0.0, HIT: 1.0}


@pytest.mark.parametrize("metric", [Metric.COHERENCE, Metric.RELEVANCE])
def test_semantic_scores_are_of_semantic_rows(metric: Metric) -> None:
    """A fallback has no coherence: its zero must not look like a bad one."""
    assert judged(metric).keys() == {SEMANTIC}


def test_a_quantile_gate_is_tested_on_exceedances() -> None:
    """Each row says whether it was longer than the limit; one at the limit was not."""
    rows = Rows(**rows_of(range(3), processing_seconds=[0.25, 0.5, 0.75]))
    values, valid = gate_samples(gate("latency-p95"), rows)
    assert valid.all()
    assert values.tolist() == [0.0, 0.0, 1.0]


def test_a_paired_gate_is_tested_on_differences() -> None:
    """The score is held against 1.02 times the rules score of the same prompt."""
    rows = Rows(**rows_of(range(2), score=[0.75, 0.5], rules_score=[0.5, 0.5]))
    values, _ = gate_samples(gate("improvement"), rows)
    assert values == pytest.approx([0.75 - 0.51, 0.5 - 0.51])


def test_any_other_gate_is_tested_on_its_metric() -> None:
    """The comparison with the control arm is made between sums, not row by row."""
    rows = Rows(**rows_of(range(2), score=[0.75, 0.5]))
    values, _ = gate_samples(gate("score-vs-control"), rows)
    assert values.tolist() == [0.75, 0.5]
