"""Ids of traces, and the sampling that follows from them (M78)."""

from __future__ import annotations

import doctest

import pytest

from streams.tracking import identity
from streams.tracking.identity import assessment_id, is_sampled, span_id, trace_id


def test_the_example_is_what_it_says() -> None:
    """The doctest of the sampler gives its exact result."""
    assert doctest.testmod(identity).failed == 0


def test_ids_are_those_of_opentelemetry() -> None:
    """A trace has 16 bytes, a span 8, in hex; MLflow puts `tr-` before the first."""
    trace = trace_id("cluster", "prompts/0/17")
    assert trace.startswith("tr-")
    assert len(bytes.fromhex(trace.removeprefix("tr-"))) == 16
    assert len(bytes.fromhex(span_id(trace, "embed"))) == 8
    assert len(assessment_id("cluster", "prompts.feedback/0/1")) <= 50


def test_a_repetition_is_the_same_and_another_cluster_is_not() -> None:
    """An id follows from what it names; two clusters have a `prompts/0/17` each."""
    assert trace_id("a", "prompts/0/17") == trace_id("a", "prompts/0/17")
    different = {
        trace_id("a", "prompts/0/17"),
        trace_id("b", "prompts/0/17"),
        trace_id("a", "prompts/0/18"),
        trace_id("ap", "rompts/0/17"),
    }
    assert len(different) == 4


@pytest.mark.parametrize("ratio", [0.0, 0.02, 0.5, 1.0])
def test_the_ratio_is_kept(ratio: float) -> None:
    """Among 20,000 prompts the share that is sampled is the ratio, within four deviations."""
    traces = [trace_id("c", f"prompts/{n % 4}/{n}") for n in range(20_000)]
    share = sum(is_sampled(trace, ratio) for trace in traces) / len(traces)
    deviation = (ratio * (1 - ratio) / len(traces)) ** 0.5
    assert abs(share - ratio) <= 4 * deviation


def test_a_higher_ratio_only_adds() -> None:
    """What is sampled at 2 % is sampled at 10 % too."""
    traces = [trace_id("c", f"prompts/0/{n}") for n in range(2000)]
    low = {t for t in traces if is_sampled(t, 0.02)}
    assert low
    assert low <= {t for t in traces if is_sampled(t, 0.1)}
