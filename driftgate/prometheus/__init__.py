"""What Prometheus and a supervisor ask of every process: numbers, life, readiness."""

from driftgate.prometheus.families import AnalyzerCollector, MonitorCollector
from driftgate.prometheus.server import Probes, Progress, serve
from driftgate.prometheus.tracker import TrackerCollector

__all__ = [
    "AnalyzerCollector",
    "MonitorCollector",
    "Probes",
    "Progress",
    "TrackerCollector",
    "serve",
]
