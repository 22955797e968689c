"""What is provisioned for Prometheus and Grafana asks for metrics that there are (M8, M62, M63)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from analyzer.curator_telemetry import CuratorTelemetry
from analyzer.telemetry import Telemetry as AnalyzerTelemetry
from driftgate.prometheus import (
    AnalyzerCollector,
    CuratorCollector,
    MonitorCollector,
    TrackerCollector,
)
from streams.telemetry import Telemetry as MonitorTelemetry
from streams.tracking.telemetry import TrackerTelemetry
from tests.support.folding import heartbeat

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/driftgate.json").read_text())


def families() -> set[str]:
    """The names that our collectors export."""
    registry = CollectorRegistry()
    registry.register(AnalyzerCollector(AnalyzerTelemetry(), heartbeat))
    registry.register(CuratorCollector(CuratorTelemetry()))
    registry.register(MonitorCollector(MonitorTelemetry()))
    registry.register(TrackerCollector(TrackerTelemetry(0.02)))
    text = generate_latest(registry).decode()
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def asked(expression: str) -> set[str]:
    """The metrics of ours that an expression is made of."""
    names = re.findall(r"\bdriftgate_[a-z_]+\b", expression)
    return {name.removesuffix("_bucket") for name in names}


def test_rules_ask_for_metrics_that_exist() -> None:
    """A rule about a metric that nobody exports would never fire."""
    rules = RULES["groups"][0]["rules"]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    wanted: set[str] = set()
    for rule in rules:
        wanted |= asked(rule["expr"])
        assert set(re.findall(r"driftgate:[a-z0-9:]+", rule["expr"])) <= recorded
        if "alert" in rule:
            assert rule["annotations"]["cure"]
    assert len(wanted) > 3
    assert wanted <= families()


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """An empty panel is worse than none."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    wanted = set().union(*(asked(expression) for expression in expressions))
    assert len(wanted) > 10
    assert wanted <= families()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
