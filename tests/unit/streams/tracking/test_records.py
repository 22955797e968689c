"""Records, names and the group of the tracker."""

from __future__ import annotations

import pytest
from aiokafka.cluster import ClusterMetadata

from schemas.topics import Topic
from streams.tracking.environment import mlflow_environment
from streams.tracking.kafka_lane import _AllToOne
from streams.tracking.mlflow_names import model_name
from streams.tracking.records import made_ms, position_of
from tests.support.tracked import MADE_MS, enriched, record


def test_an_event_was_made_when_its_header_says() -> None:
    """To the millisecond; the broker's time is when it was published."""
    found = record(Topic.ENRICHED, enriched(5), 7, made_ms=MADE_MS + 123, published_ms=MADE_MS + 9)
    assert made_ms(found) == MADE_MS + 123
    assert position_of(found).event_id() == "prompts.enriched/0/7"


@pytest.mark.parametrize("text", [b"", b"yesterday", b"2026-01-02T03:04:05", b"\xff"])
def test_without_a_time_it_was_made_when_it_was_published(text: bytes) -> None:
    """A header of another producer may say anything, or nothing."""
    found = record(Topic.ENRICHED, enriched(), published_ms=MADE_MS + 9)
    assert made_ms(found._replace(headers=[("ce_time", text)])) == MADE_MS + 9
    assert made_ms(found._replace(headers=[])) == MADE_MS + 9


def test_a_service_is_a_model_whatever_it_is_called() -> None:
    """MLflow takes no slash and no colon; two services are never one model."""
    assert model_name("shop") == "driftgate-shop"
    odd = [model_name(name) for name in ("a/b", "a:b", "a b", "x" * 300, "")]
    assert len(set(odd)) == len(odd)
    assert all("/" not in name and ":" not in name and len(name) < 200 for name in odd)


def test_everything_goes_to_one_member_of_the_group() -> None:
    """The others stand by."""
    members = {f"m{n}": _AllToOne.metadata(["a", "b"]) for n in range(3)}
    cluster = ClusterMetadata()
    cluster.partitions_for_topic = lambda topic: {"a": {0, 1}, "b": {0}}[topic]
    given = _AllToOne.assign(cluster, members)
    assert given["m0"].assignment == [("a", [0, 1]), ("b", [0])]
    assert given["m1"].assignment == given["m2"].assignment == []


def test_mlflow_is_told_not_to_be_patient() -> None:
    """It would try for minutes without a word, and report to its makers."""
    told = mlflow_environment(7)
    assert told["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert told["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert told["MLFLOW_DISABLE_TELEMETRY"] == "true"
