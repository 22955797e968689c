"""MLflow away, sick, hanging, full: nothing is lost, and it is said (bad input: a server's 500)."""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError

from driftgate.broker import probe_cluster
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from streams.tracking.identity import trace_id
from tests.support.mlflow_stores import MLFLOW_WARNINGS, START_S, client_of
from tests.support.monitoring import admin
from tests.support.processes import Driftgate, Launch, eventually
from tests.support.scraping import metrics_of
from tests.support.tracked import enriched, feedback, publish, rolled_back, started, window
from tests.support.web_proxy import Proxy, proxied

pytestmark = MLFLOW_WARNINGS


HOUR = "3600"
"""Time-out of a request that is as good as none, in seconds."""


def track(
    launch: Launch, kafka: KafkaSettings, uri: str, experiment: str, timeout_s: str = "3"
) -> Driftgate:
    return launch(
        "tracker",
        kafka=kafka,
        DRIFTGATE_MLFLOW_URI=uri,
        DRIFTGATE_MLFLOW_EXPERIMENT=experiment,
        DRIFTGATE_MLFLOW_TIMEOUT_SECONDS=timeout_s,
        DRIFTGATE_HTTP_PORT="0",
        DRIFTGATE_TRACE_RATIO="1",
    )


def lag_of(tracker: Driftgate) -> float | None:
    """Results that are not in MLflow, as `/metrics` says; None before it has looked."""
    return metrics_of(tracker).get('driftgate_consumer_lag_messages{topic="prompts.enriched"}')


def written(uri: str, experiment: str) -> list[str]:
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    page = client.search_traces(
        locations=[found.experiment_id], max_results=500, include_spans=False
    )
    return sorted(trace.info.trace_id for trace in page)


async def committed(kafka: KafkaSettings, lane: str = "traces") -> int:
    """The sum of the offsets that a group has committed."""
    group = f"{kafka.topic_prefix}driftgate-tracker-{lane}"
    async with admin(kafka) as client:
        try:
            offsets = await client.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            # No group has ever committed anything on this broker.
            return 0
    return sum(max(found.offset, 0) for found in offsets.values())


def answers_500(proxy: Proxy) -> None:
    proxy.status = 500


def answers_503(proxy: Proxy) -> None:
    proxy.status = 503


def hangs(proxy: Proxy) -> None:
    proxy.hold.clear()


def hangs_up(proxy: Proxy) -> None:
    proxy.closed = True


def hung_by(tracker: Driftgate, kafka: KafkaSettings, proxy: Proxy, first: int) -> None:
    """One trace is written; the call for a second one is not answered."""
    tracker.wait_for_log("traces: reading", within_s=START_S)
    # MLflow asks a server for its version before the first trace, for 3 s at most.
    asyncio.run(publish(kafka, [(Topic.ENRICHED, enriched(first))]))
    eventually("it commits", lambda: asyncio.run(committed(kafka)) == 1)
    hangs(proxy)
    seen = proxy.seen
    asyncio.run(publish(kafka, [(Topic.ENRICHED, enriched(first + 1))]))
    eventually("it hangs", lambda: proxy.seen > seen)


def is_well(proxy: Proxy) -> None:
    proxy.status, proxy.closed = None, False
    proxy.hold.set()


@pytest.mark.parametrize("sick", [answers_500, answers_503, hangs, hangs_up])
def test_a_sick_server_is_waited_for(
    sick: Callable[[Proxy], None], kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """Also at the start; no offset is committed meanwhile, and then everything is there, once."""
    experiment = f"e-{uuid.uuid4().hex[:8]}"
    cluster = probe_cluster(kafka.bootstrap_servers, 10).cluster_id
    # Sources of its own: the server is shared, and a trace stays where it was first written to.
    first = int(uuid.uuid4().hex[:6], 16) * 1000
    ids = sorted(trace_id(cluster, f"prompts/0/{first + n}") for n in range(40))
    with proxied(mlflow_url) as proxy:
        sick(proxy)
        asyncio.run(publish(kafka, [
            (Topic.CONTROL, started()),
            *[(Topic.ENRICHED, enriched(first + n)) for n in range(20)],
        ]))  # fmt: skip
        tracker = track(launch, kafka, proxy.url, experiment)
        tracker.wait_for_log("MLflow did not take its first call; again in", 2, START_S)
        assert asyncio.run(committed(kafka)) == 0
        is_well(proxy)
        eventually("it catches up", lambda: len(written(mlflow_url, experiment)) == 20)
        eventually("it commits", lambda: asyncio.run(committed(kafka)) == 20)

        sick(proxy)
        asyncio.run(publish(kafka, [
            *[(Topic.ENRICHED, enriched(first + n)) for n in range(20, 40)],
            (Topic.FEEDBACK, feedback(first + 3)),
            (Topic.METRICS, window()),
            (Topic.CONTROL, rolled_back()),
        ]))  # fmt: skip
        tracker.wait_for_log("MLflow did not take", tracker.log.count("MLflow did not take") + 3)
        assert asyncio.run(committed(kafka)) == 20
        assert len(written(mlflow_url, experiment)) == 20
        is_well(proxy)
        eventually("all traces are there", lambda: written(mlflow_url, experiment) == ids)
        eventually("all is committed", lambda: asyncio.run(committed(kafka)) == 41)
        eventually("of runs, too", lambda: asyncio.run(committed(kafka, "runs")) == 3)
        assert tracker.stop() == 0
    client = client_of(mlflow_url)
    trace = client.get_trace(trace_id(cluster, f"prompts/0/{first + 3}"))
    assert len(trace.info.assessments) == 1
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("again_and_again", [True, False])
def test_a_stop_does_not_wait_for_a_server_to_come_back(
    again_and_again: bool, kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """Between two tries or within a call that hangs; the next start writes what was left."""
    experiment = f"e-{uuid.uuid4().hex[:8]}"
    first = int(uuid.uuid4().hex[:6], 16) * 1000
    with proxied(mlflow_url) as proxy:
        timeout = "3" if again_and_again else HOUR
        tracker = track(launch, kafka, proxy.url, experiment, timeout)
        hung_by(tracker, kafka, proxy, first)
        if again_and_again:
            tracker.wait_for_log("MLflow did not take")
        assert tracker.stop() == 0
        assert ("MLflow did not take" in tracker.log) is again_and_again
        assert asyncio.run(committed(kafka)) == 1
        is_well(proxy)
        again = track(launch, kafka, proxy.url, experiment)
        again.wait_for_log("traces: reading", within_s=START_S)
        eventually("it is written", lambda: len(written(mlflow_url, experiment)) == 2)


def test_a_stop_does_not_wait_for_the_first_call(
    kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """A server that hangs before the tracker has joined its groups does not keep it either."""
    with proxied(mlflow_url) as proxy:
        hangs(proxy)
        tracker = track(launch, kafka, proxy.url, "never", HOUR)
        eventually("it hangs", lambda: proxy.seen, START_S)
        assert tracker.stop() == 0


def test_the_lag_is_seen_while_a_server_hangs(
    kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """What waits is counted by the broker's ends, not by what MLflow lets through."""
    experiment = f"e-{uuid.uuid4().hex[:8]}"
    first = int(uuid.uuid4().hex[:6], 16) * 1000
    with proxied(mlflow_url) as proxy:
        tracker = track(launch, kafka, proxy.url, experiment, HOUR)
        hung_by(tracker, kafka, proxy, first)
        for waiting in (1, 31):
            eventually(f"{waiting} wait", lambda n=waiting: lag_of(tracker) == n)
            asyncio.run(publish(kafka, [
                (Topic.ENRICHED, enriched(first + 1 + waiting + n)) for n in range(30)
            ]))  # fmt: skip
        is_well(proxy)
        eventually("nothing waits", lambda: lag_of(tracker) == 0)
        assert len(written(mlflow_url, experiment)) == 62


def test_what_a_server_never_takes_is_passed_over_alone(
    kafka: KafkaSettings, launch: Launch, mlflow_url: str
) -> None:
    """One prompt that makes the server fail costs that prompt its trace, and is counted."""
    experiment = f"e-{uuid.uuid4().hex[:8]}"
    first = int(uuid.uuid4().hex[:6], 16) * 1000
    with proxied(mlflow_url) as proxy:
        proxy.poison = b"POISON"
        events = [enriched(first + n, prompt="POISON" if n == 17 else "good") for n in range(40)]
        asyncio.run(publish(kafka, [(Topic.ENRICHED, event) for event in events]))
        tracker = track(launch, kafka, proxy.url, experiment)
        tracker.wait_for_log("MLflow does not take the trace of", within_s=START_S)
        assert f"prompts/0/{first + 17}" in tracker.log
        eventually("the others are there", lambda: len(written(mlflow_url, experiment)) == 39)
        eventually("all is committed", lambda: asyncio.run(committed(kafka)) == 40)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit is a call of Linux")
def test_a_full_disk_is_waited_for(kafka: KafkaSettings, launch: Launch, mlflow_uri: str) -> None:
    """A database that cannot grow takes nothing; when it can again, everything is there."""
    database = FilePath(mlflow_uri.removeprefix("sqlite:///"))
    tracker = track(launch, kafka, mlflow_uri, "full")
    tracker.wait_for_log("traces: reading", within_s=START_S)
    _, hard = resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE)
    # What fits into pages that are there already may still be taken.
    resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE, (database.stat().st_size, hard))
    asyncio.run(publish(kafka, [(Topic.ENRICHED, enriched(n)) for n in range(200)]))
    tracker.wait_for_log("MLflow did not take", times=3)
    assert len(written(mlflow_uri, "full")) < 200
    assert asyncio.run(committed(kafka)) < 200
    resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE, (hard, hard))
    eventually("all traces are there", lambda: len(written(mlflow_uri, "full")) == 200)
    eventually("all is committed", lambda: asyncio.run(committed(kafka)) == 200)
    assert "passed over" not in tracker.log
