"""The watch over a stage: the evidence of every gate since it, or its resumption, began."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.control import GateReport
from schemas.log import RowFlag, Rows
from schemas.policy import Against, Gate, Policy
from streams.gates.evidence import AnyEvidence, evidence_for, latency_cap
from streams.gates.judge import gate_alpha, judge
from streams.gates.sustained import SustainedTimer
from streams.metrics import CANDIDATE, CONTROL, gate_samples

__all__ = ["Judgement", "Watch", "new_watch"]

_GAP_PANES = 3
"""A breach that must last is interrupted by so many panes without an observation."""


class Judgement(msgspec.Struct, frozen=True):
    """A gate's report, and what the rollout needs beside the verdict."""

    gate: Gate
    report: GateReport
    holds: bool
    """Enough rows, and the estimate is on the good side: nothing speaks against advancing."""

    @property
    def acts(self) -> bool:
        """Whether the gate may change anything."""
        return not self.gate.dry_run


class Watch(msgspec.Struct, kw_only=True):
    """Evidence, one for each gate of the policy in its order; changed in place."""

    alpha_breach: float
    """What each gate may spend on ever calling this candidate a breach, in this period."""
    evidence: list[AnyEvidence]
    timers: list[SustainedTimer | None]
    """Of the gates whose breach must last."""
    candidate_rows: int = 0
    """Rows of the candidate arm, whichever metrics they have."""

    def take(self, rows: Rows, gates: list[Gate], counted: list[bool]) -> None:
        """Count a batch, all of it made under this stage's revision.

        Args:
            rows: what was measured.
            gates: of the policy.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        candidate = rows.has(RowFlag.CANDIDATE)
        self.candidate_rows += int(np.count_nonzero(candidate))
        for gate, evidence, now in zip(gates, self.evidence, counted, strict=True):
            if now:
                values, valid = gate_samples(gate, rows)
                evidence.update(values[valid & ~candidate], values[valid & candidate])

    def observe(self, gates: list[Gate], recent: npt.NDArray[np.float64], now_ms: int) -> None:
        """Tell the timers how the running window looks.

        Args:
            gates: of the policy.
            recent: moments of the running window, shape (arms, gates, 3).
            now_ms: log time.
        """
        for i, (gate, timer) in enumerate(zip(gates, self.timers, strict=True)):
            if timer is not None:
                timer.update(now_ms, breaching=_recent_breach(gate, recent[:, i]))

    def judge(self, policy: Policy, *, control_exists: bool, with_bounds: bool) -> list[Judgement]:
        """Every gate by its evidence; bounds take a hundred times longer than verdicts."""
        judged = []
        for gate, evidence, timer in zip(policy.gates, self.evidence, self.timers, strict=True):
            report = judge(
                gate,
                evidence,
                alpha_breach=self.alpha_breach,
                alpha_good=policy.alpha,
                timer=timer,
                candidate_rows=self.candidate_rows,
                control_exists=control_exists,
                with_bounds=with_bounds,
            )
            holds = _holds(gate, evidence, timer, control_exists=control_exists)
            judged.append(Judgement(gate, report, holds))
        return judged


def new_watch(policy: Policy, *, restart: int = 0) -> Watch:
    """An empty watch, for a stage that begins.

    Args:
        policy: of the rollout.
        restart: 0 for a stage that was reached, else the how-manieth resumption of the rollout: it
            spends a share of alpha of its own.
    """
    gates = policy.gates
    alpha = gate_alpha(policy.alpha, gates, stages=len(policy.stages), restart=restart)
    cap = latency_cap(gates)
    return Watch(
        alpha_breach=alpha,
        evidence=[evidence_for(gate, alpha_breach=alpha, latency_cap_s=cap) for gate in gates],
        timers=[
            SustainedTimer(
                required_ms=round(gate.sustained_seconds * 1000),
                gap_ms=max(_GAP_PANES * policy.windows.pane_ms, policy.windows.window_ms),
            )
            if gate.sustained_seconds
            else None
            for gate in gates
        ],
    )


def _recent_breach(gate: Gate, moments: npt.NDArray[np.float64]) -> bool:
    """Whether the running window's estimate is beyond the objective, with rows enough to say."""
    n, total, _ = moments[CANDIDATE]
    control_n, control_total, _ = moments[CONTROL]
    against_control = gate.against is Against.CONTROL
    if n < gate.min_samples or (against_control and control_n < gate.min_samples):
        return False
    objective = gate.parsed
    if gate.statistic.quantile is not None:
        limit = 1.0 - gate.statistic.quantile
    elif against_control:
        control = control_total / control_n
        relative = (1.0 + objective.limit) * control
        floored = control + (gate.floor if objective.upper else -gate.floor)
        limit = max(relative, floored) if objective.upper else min(relative, floored)
        limit = limit if gate.floor else relative
    else:
        limit = 0.0 if gate.against is Against.RULES else objective.limit
    return bool(total / n > limit if objective.upper else total / n < limit)


def _holds(
    gate: Gate, evidence: AnyEvidence, timer: SustainedTimer | None, *, control_exists: bool
) -> bool:
    against_control = gate.against is Against.CONTROL
    if against_control and not control_exists:
        return True
    if evidence.samples < gate.min_samples or evidence.value is None:
        return False
    if against_control and evidence.control_samples < gate.min_samples:
        return False
    if timer is not None and timer.since_ms is not None:
        return False
    upper = gate.parsed.upper
    return evidence.value <= evidence.limit if upper else evidence.value >= evidence.limit
