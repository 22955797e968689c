"""What a monitor counts for whoever looks at it from outside, from what its fold says.

Decisions never rest on these numbers; they rest on the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from schemas.control import (
    AlertEvent,
    AlertStatus,
    GateBreached,
    GateReport,
    GateStatus,
    RolloutRolledBack,
)
from schemas.rollout import RolloutState
from streams.outputs import Output

__all__ = ["Telemetry"]


class Telemetry:
    """The newest state of each service, and counts since the start of the process."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        """Control events by service and type."""
        self.breaches: Counter[tuple[str, str]] = Counter()
        """By service and gate."""
        self.rollbacks: Counter[tuple[str, str]] = Counter()
        """By service and the gate that caused them, or ``operator``."""
        self.gates: dict[tuple[str, str], GateReport] = {}
        """The newest report by service and gate."""
        self.status: dict[str, GateStatus] = {}
        self.rollouts: dict[str, RolloutState] = {}
        self.alerts: dict[str, AlertEvent] = {}
        """Alerts that are open, by key."""
        self.records = 0
        """Records of the log that were folded."""
        self.assigned = False
        """Whether the group has said which partitions are ours."""
        self.ticks = 0
        """Turns of the timer: a loop that stands still makes none."""

    def take(self, outputs: Iterable[Output]) -> None:
        """Count what one record made the fold say, once it is delivered."""
        self.records += 1
        for output in outputs:
            match output.event:
                case GateStatus() as status:
                    self._status(status)
                case RolloutState() as rollout:
                    self.rollouts[rollout.service] = rollout
                case AlertEvent() as alert:
                    self._alert(alert)
                case event:
                    kind = event.__struct_config__.tag
                    if kind is None:
                        continue
                    self.events[event.service, str(kind)] += 1
                    if isinstance(event, GateBreached):
                        self.breaches[event.service, event.gate.gate] += 1
                    elif isinstance(event, RolloutRolledBack):
                        cause = event.gate.gate if event.gate else "operator"
                        self.rollbacks[event.service, cause] += 1

    def _status(self, status: GateStatus) -> None:
        self.status[status.service] = status
        for key in [key for key in self.gates if key[0] == status.service]:
            del self.gates[key]
        self.gates |= {(status.service, report.gate): report for report in status.gates}

    def _alert(self, alert: AlertEvent) -> None:
        if alert.status is AlertStatus.RESOLVED:
            self.alerts.pop(alert.key, None)
        else:
            self.alerts[alert.key] = alert

    def forget(self, services: Iterable[str]) -> None:
        """Drop services that another monitor owns now: it shows them."""
        gone = set(services)
        for service in gone:
            self.status.pop(service, None)
            self.rollouts.pop(service, None)
        self.gates = {k: v for k, v in self.gates.items() if k[0] not in gone}
        self.alerts = {k: v for k, v in self.alerts.items() if v.service not in gone}
