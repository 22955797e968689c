"""What Prometheus and a supervisor ask of every process: numbers, life, readiness."""

from driftgate.prometheus.curator import CuratorCollector
from driftgate.prometheus.families import AnalyzerCollector, MonitorCollector
from driftgate.prometheus.server import Probes, Progress, serve

__all__ = [
    "AnalyzerCollector",
    "CuratorCollector",
    "MonitorCollector",
    "Probes",
    "Progress",
    "serve",
]
