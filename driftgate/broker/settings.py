"""The broker's settings: one node, small, and the same in the embedded one and in a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["COMMON", "embedded_properties", "render_properties"]

# What a single node needs, and what keeps it small and quick to start.
COMMON: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node: nothing can be replicated, and the defaults (3, 2) would refuse every write.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default of 50 partitions each costs a second at the first commit and transaction.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # The default 3 s are for big groups that start together.
    "group.initial.rebalance.delay.ms": "0",
    # The default refuses sessions under 6 s exactly; failover tests want to go lower.
    "group.min.session.timeout.ms": "1000",
    # A mistyped topic is an error, not a new topic.
    "auto.create.topics.enable": "false",
    # A 2 MB prompt has to reach the worker, which rejects it with a code; 4 MiB leave room for
    # its encoding. Clients must raise their own bounds too.
    "message.max.bytes": "4194304",
    "replica.fetch.max.bytes": "4194304",
    # The default of 128 MiB is allocated at start and makes up 40 % of the resident memory;
    # 16 MiB hold 600,000 keys a cleaning.
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


def embedded_properties(port: int, controller_port: int, log_dir: Path) -> dict[str, str]:
    """The settings of the embedded broker.

    Args:
        port: for clients, on 127.0.0.1.
        controller_port: for the controller, on 127.0.0.1.
        log_dir: the folder of Kafka's own data.
    """
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"
    return {
        **COMMON,
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # With `format --standalone` (a dynamic quorum), so a restart may take other ports.
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "log.dirs": str(log_dir),
    }


def render_properties(properties: Mapping[str, str]) -> str:
    """The text of a Java properties file: ASCII, the rest as Unicode escapes."""
    return "".join(f"{key}={_escape(value)}\n" for key, value in properties.items())


def _escape(value: str) -> str:
    out = []
    for character in value:
        if character == "\\":
            out.append("\\\\")
        elif character.isascii():
            out.append(character)
        else:
            units = character.encode("utf-16-be")
            out += [f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)]
    return "".join(out)
