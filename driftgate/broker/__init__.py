"""The embedded Kafka broker, and the one place that decides which broker is used."""

from __future__ import annotations

from driftgate.broker.artefacts import KAFKA_VERSION, Progress, default_cache_dir, fetch_jars
from driftgate.broker.choose import BOOTSTRAP_VARIABLE, Broker, Kind, choose_broker
from driftgate.broker.embedded import EmbeddedKafka
from driftgate.broker.errors import (
    BrokerError,
    BrokerFetchError,
    BrokerJavaError,
    BrokerStartError,
    BrokerUnreachableError,
)
from driftgate.broker.foreground import serve
from driftgate.broker.jvm import Java, find_java
from driftgate.broker.probe import ClusterAnswer, probe_cluster

__all__ = [
    "BOOTSTRAP_VARIABLE",
    "KAFKA_VERSION",
    "Broker",
    "BrokerError",
    "BrokerFetchError",
    "BrokerJavaError",
    "BrokerStartError",
    "BrokerUnreachableError",
    "ClusterAnswer",
    "EmbeddedKafka",
    "Java",
    "Kind",
    "Progress",
    "choose_broker",
    "default_cache_dir",
    "fetch_jars",
    "find_java",
    "probe_cluster",
    "serve",
]
