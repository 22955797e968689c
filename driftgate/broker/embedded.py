"""The embedded broker: Apache Kafka itself (KRaft, one node, 127.0.0.1) as a child process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from driftgate.broker.artefacts import KAFKA_VERSION, Progress, default_cache_dir, fetch_jars
from driftgate.broker.child import STOP_TIMEOUT_S, GuardedJava
from driftgate.broker.errors import BrokerStartError, BrokerUnreachableError
from driftgate.broker.jvm import Java, find_java
from driftgate.broker.layout import Layout, new_cluster_id, prepare_layout, read_cluster_id
from driftgate.broker.locking import take_lock
from driftgate.broker.logtext import cause_in_log, last_lines
from driftgate.broker.ports import check_port, free_ports
from driftgate.broker.probe import probe_cluster
from driftgate.broker.settings import embedded_properties, render_properties

__all__ = ["EmbeddedKafka"]

# One node with little data: 170 MB resident, and quicker to start without the optimising compiler.
_JAVA_FLAGS = (
    "-Xms128m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # else a kill leaves a file in /tmp
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

# Format and start take 3.5 s on two idle cores; a busy machine may need ten times that.
_START_TIMEOUT_S = 60.0
# Between two looks at a starting broker.
_POLL_S = 0.05
# A free port may be taken by another process before Java binds it: start again on others.
_START_TRIES = 3


class EmbeddedKafka:
    """One Apache Kafka broker on 127.0.0.1, ended with its owner whatever happens to that.

    Use it as a context manager, or call `start` and `stop`. `start` and `stop` block: in a
    coroutine call them by `asyncio.to_thread`. No process stays behind, even after kill -9 of the
    owner: a guardian process ends Java then, and removes a temporary folder.

    Args:
        data_dir: keeps topics over restarts; formatted at the first use. Default: a temporary
            folder, removed at the end.
        port: for clients, 1 to 65535. Default: a free one.
        environ: where JAVA_HOME, PATH and the cache folder are read; default: the process's.
        cache_dir: where the jars are kept; default: `default_cache_dir(environ)`.
        progress: told what is fetched and started.
        start_timeout_s: bound of format and start together, in seconds, without the fetch.
        properties: settings of the broker over those of `settings`.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
        cache_dir: Path | None = None,
        progress: Progress | None = None,
        start_timeout_s: float = _START_TIMEOUT_S,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._data_dir = data_dir
        self._wanted_port = port
        self._cache_dir = default_cache_dir(self._environ) if cache_dir is None else cache_dir
        self._progress = progress
        self._start_timeout_s = start_timeout_s
        self._properties = dict(properties or {})
        self._layout: Layout | None = None
        self._child: GuardedJava | None = None
        self._log_is_evidence = False
        self._port: int | None = None
        self._java: Java | None = None

    @property
    def version(self) -> str:
        """What runs, for people."""
        return f"Apache Kafka {KAFKA_VERSION}"

    @property
    def port(self) -> int:
        """The clients' port; after a stop, that of the last run."""
        if self._port is None:
            raise BrokerStartError("the embedded broker has not been started; call start() first")
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, `127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of Java; None when it does not run."""
        return self._child.pid if self._child is not None and self._child.is_running else None

    @property
    def java(self) -> Java | None:
        """The Java runtime that was chosen by the last start."""
        return self._java

    @property
    def data_dir(self) -> Path | None:
        """The broker's folder; None before the first start."""
        return self._layout.folder if self._layout else None

    @property
    def log_path(self) -> Path | None:
        """All that the broker's Java says; None before the first start.

        The log of a temporary broker is removed by `stop`, and kept when Java failed.
        """
        return self._layout.log if self._layout else None

    @property
    def is_running(self) -> bool:
        """Whether Java runs, as far as its guardian knows."""
        return self._child is not None and self._child.is_running

    def start(self) -> Self:
        """Starts the broker and waits until it answers; does nothing when it runs.

        Raises:
            BrokerFetchError: the jars cannot be had.
            BrokerJavaError: no Java runtime can be used.
            BrokerStartError: it did not start; names the cause, and the log with its last lines.
        """
        if self.is_running:
            return self
        self._end(keep_log=True)  # what is left of one that ended by itself
        if self._wanted_port is not None:
            check_port(self._wanted_port)
        self._java = find_java(self._environ)
        jars = fetch_jars(self._cache_dir, progress=self._progress)
        self._tell(0, f"starting {self.version} on Java {self._java.version}")
        for tries_left in reversed(range(_START_TRIES)):
            self._layout = prepare_layout(self._data_dir)
            self._log_is_evidence = False
            try:
                cluster_id = self._launch(self._layout, self._java, jars)
                self._wait_until_it_answers(self._layout, cluster_id)
            except BrokerStartError:
                raced = "already in use" in (cause_in_log(self._layout.log) or "")
                self._log_is_evidence = not (raced and tries_left)
                self._end(keep_log=self._log_is_evidence)
                if self._log_is_evidence:
                    raise
            except BaseException:  # Ctrl-C, above all
                self._end(keep_log=False)
                raise
            else:
                break
        self._tell(1, f"accepting on {self.bootstrap_servers}")
        return self

    def check(self) -> None:
        """Does nothing while the broker runs.

        Raises:
            BrokerStartError: it ended by itself (with the cause from its log), or was never
                started.
        """
        if self._child is None or self._layout is None:
            raise BrokerStartError("the embedded broker does not run; call start() first")
        if not self._child.is_running:
            raise self._failure(self._layout, "ended by itself")

    def stop(self) -> None:
        """Stops the broker in order, and removes a temporary folder; safe to call again.

        Blocks until Java has ended: 0.4 s as a rule, 10 s at most, then Java is killed.
        """
        if self._child is not None and not self._child.is_running:
            self._log_is_evidence = True
        self._end(keep_log=self._log_is_evidence)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _tell(self, done: int, label: str) -> None:
        if self._progress is not None:
            self._progress(done, 1, label)

    def _launch(self, layout: Layout, java: Java, jars: tuple[Path, ...]) -> str:
        """Lets a guardian format (if need be) and run Kafka; returns the cluster's id."""
        lock = self._own(layout)
        try:
            cluster_id = read_cluster_id(layout.data)
            self._port, controller_port = free_ports(self._wanted_port)
            properties = embedded_properties(self._port, controller_port, layout.data)
            properties.update(self._properties)
            layout.properties.write_text(render_properties(properties), encoding="ascii")
            if layout.log.exists():
                layout.log.replace(layout.log.with_suffix(".log.1"))
            kafka = [str(java.path), *_JAVA_FLAGS, "-cp", os.pathsep.join(map(str, jars))]
            prepare = []
            if cluster_id is None:
                cluster_id = new_cluster_id()
                tool = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id]
                prepare.append([*kafka, *tool, "-c", str(layout.properties)])
            run = [*kafka, "kafka.Kafka", str(layout.properties)]
            self._child = GuardedJava(prepare, run, layout, lock)
        except OSError as error:
            raise BrokerStartError(
                f"the broker cannot be started in {layout.folder} ({error}); check the folder's "
                "permissions and free room, or name another one"
            ) from error
        finally:
            os.close(lock)
        return cluster_id

    def _own(self, layout: Layout) -> int:
        """Takes the folder's lock and writes this process's id into it; returns its descriptor."""
        lock = take_lock(layout.lock, 0)
        owner = layout.read_owner()
        if lock is None and not _is_alive(owner):
            # Its owner was killed a moment ago, and the guardian is still stopping Java.
            lock = take_lock(layout.lock, STOP_TIMEOUT_S + 5)
        if lock is None:
            raise BrokerStartError(
                f"another broker, started by process {owner}, runs on the data folder "
                f"{layout.folder}; stop it, or name another folder"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _wait_until_it_answers(self, layout: Layout, cluster_id: str) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        why = "does not accept connections"
        while time.monotonic() < deadline:
            if not self.is_running:
                raise self._failure(layout, "did not start")
            time.sleep(_POLL_S)
            try:
                answer = probe_cluster(
                    self.bootstrap_servers, max(0.1, min(5.0, deadline - time.monotonic()))
                )
            except BrokerUnreachableError as error:
                why = str(error)
                continue
            # Another Kafka may have taken the port; this one is then about to fail.
            if answer.cluster_id == cluster_id and answer.nodes:
                return
            why = f"another cluster ({answer.cluster_id}) answers on its port"
        raise self._failure(layout, f"did not answer within {self._start_timeout_s:g} s ({why})")

    def _end(self, *, keep_log: bool) -> None:
        """Ends guardian and Java, and removes what is temporary."""
        child, self._child = self._child, None
        try:
            if child is not None:
                child.end(keep_log=keep_log)
        finally:
            if self._layout is not None:
                self._layout.remove(keep_log=keep_log)

    def _failure(self, layout: Layout, what: str) -> BrokerStartError:
        log = layout.log
        cause = cause_in_log(log)
        return BrokerStartError(
            f"the embedded {self.version} {what}"
            + (f": {cause}" if cause else "")
            + f"\nlog: {log}\n{last_lines(log) or '(it is empty)'}"
        )


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
