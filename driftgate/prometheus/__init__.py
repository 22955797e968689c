"""What Prometheus and a supervisor ask of every process: numbers, life, readiness."""

from driftgate.prometheus.console import ConsoleCollector
from driftgate.prometheus.curator import CuratorCollector
from driftgate.prometheus.families import AnalyzerCollector, MonitorCollector
from driftgate.prometheus.server import Probes, Progress, registry_of, serve
from driftgate.prometheus.tracker import TrackerCollector

__all__ = [
    "AnalyzerCollector",
    "ConsoleCollector",
    "CuratorCollector",
    "MonitorCollector",
    "Probes",
    "Progress",
    "TrackerCollector",
    "registry_of",
    "serve",
]
