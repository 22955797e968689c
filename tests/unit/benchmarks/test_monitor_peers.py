from __future__ import annotations

import pytest

from benchmarks.monitor_peers import PEERS, NotHereError


@pytest.mark.parametrize("name", [peer.name for peer in PEERS if "kafka_streams" in peer.name])
def test_without_java_kafka_streams_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is said with its cure, and nothing is installed."""
    monkeypatch.setenv("PATH", "")
    peer = next(peer for peer in PEERS if peer.name == name)
    with pytest.raises(NotHereError, match="java is not on the PATH: install Maven and Java 17"):
        peer.command()
