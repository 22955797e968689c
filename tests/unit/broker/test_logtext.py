from __future__ import annotations

from pathlib import Path

from driftgate.broker.logtext import cause_in_log, last_lines

LOG = """\
2026 [main] WARN org.apache.kafka.controller.QuorumController - Performing activation.
2026 [main] ERROR kafka.network.DataPlaneAcceptor - Unable to start acceptor for PLAINTEXT
org.apache.kafka.common.KafkaException: Socket server failed to bind: Address already in use.
\tat kafka.network.Acceptor.openServerSocket(SocketServer.scala:615)
\t... 16 more
Caused by: java.net.BindException: Address already in use
\tat java.base/sun.nio.ch.Net.bind0(Native Method)
2026 [main] ERROR kafka.server.BrokerServer - Fatal error during broker startup.
java.lang.RuntimeException: Unable to start acceptor for PLAINTEXT
java ended by itself with 1
"""


def test_first_exception_is_the_cause(tmp_path: Path) -> None:
    """Later ones only say that something went wrong before."""
    path = tmp_path / "log"
    path.write_text(LOG)
    assert cause_in_log(path) == "Socket server failed to bind: Address already in use."


def test_last_lines_leave_stack_frames_out(tmp_path: Path) -> None:
    """A person sees messages, not a hundred frames."""
    path = tmp_path / "log"
    path.write_text(LOG)
    assert last_lines(path, 3).splitlines() == [
        "2026 [main] ERROR kafka.server.BrokerServer - Fatal error during broker startup.",
        "java.lang.RuntimeException: Unable to start acceptor for PLAINTEXT",
        "java ended by itself with 1",
    ]


def test_log_without_exception_or_without_file_has_no_cause(tmp_path: Path) -> None:
    """Nothing is invented."""
    path = tmp_path / "log"
    assert (cause_in_log(path), last_lines(path)) == (None, "")
    path.write_text("all is well\n")
    assert cause_in_log(path) is None


def test_exception_of_the_main_thread_is_a_cause(tmp_path: Path) -> None:
    """A wrong setting ends Java before there is a log line."""
    path = tmp_path / "log"
    path.write_text('Exception in thread "main" org.x.ConfigException: Invalid value many\n')
    assert cause_in_log(path) == "Invalid value many"
