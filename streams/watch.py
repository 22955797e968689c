"""The watch over a deployment: the evidence of every gate since a stage, or its resumption, began.

After a promotion it goes on, against what the control arm was like in the last stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.control import GateReport, Verdict
from schemas.log import Heartbeat
from schemas.policy import Against, Gate, GateRole, Metric, Policy
from streams.counting import count_rows, has_enough, recent_breach
from streams.feedback import FeedbackSamples
from streams.gates.evidence import HORIZON_ROWS, AnyEvidence, evidence_for, latency_cap
from streams.gates.health import HealthEvidence
from streams.gates.judge import STARVED, decide, gate_alpha, judge, missing_verdict
from streams.gates.kinds import ContrastEvidence
from streams.gates.sustained import SustainedTimer
from streams.health import FleetHealth
from streams.metrics import CANDIDATE, CONTROL
from streams.samples import Samples
from streams.segments import BySegment

__all__ = ["WATCH_HORIZON_ROWS", "Watch", "new_watch", "watch_after_promotion"]

# Looked up once: in Python 3.11 each access to a member through its class runs a descriptor.
_PROMOTION = GateRole.PROMOTION

_GAP_PANES = 3
"""A breach that must last is interrupted by so many panes without an observation."""

WATCH_HORIZON_ROWS = 1_000_000.0
"""Of the change detectors after a promotion: with alpha 0.05 they take back a deployment that does
no harm once in 20 million prompts or more seldom. A tenth of it would find a regression 2.3 nats
of about 17 sooner, and be wrong ten times as often."""


class Watch(msgspec.Struct, kw_only=True):
    """Gates and their evidence, in the same order; changed in place.

    Gates are named by their place. Looking is cheap, and is done at every batch; a report with its
    reason and bounds is made where something is said.
    """

    gates: list[Gate]
    alpha_breach: float
    """What each gate may spend on ever calling this candidate a breach, in this period."""
    alpha_good: float
    """What each may spend on ever certifying one that breaks it."""
    control_exists: bool
    """Whether any user is in the control arm."""
    evidence: list[AnyEvidence]
    timers: list[SustainedTimer | None]
    """Of the gates whose breach must last."""
    candidate_rows: list[int]
    """Rows of the candidate arm that a gate could have counted, by gate: with its metric or
    without, after its warm-up."""
    control_rows: list[int]
    enough: list[bool]
    """Whether a gate has rows enough to be judged, as it then has for the rest of the period."""
    health: FleetHealth = msgspec.field(default_factory=FleetHealth)

    def take(self, samples: BySegment[Samples], counted: list[bool]) -> None:
        """Count a batch, all of it made under this stage's revision.

        Args:
            samples: what was measured.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        for i, gate in enumerate(self.gates):
            if counted[i]:
                mine = samples.of(gate.segments)
                self.control_rows[i] += mine.meant(CONTROL)
                self.candidate_rows[i] += mine.meant(CANDIDATE)
                if not gate.metric.is_of_prompts:
                    continue
                count_rows(gate, self.evidence[i], mine)
                self.enough[i] = self.enough[i] or has_enough(gate, self.evidence[i])

    def take_feedback(self, samples: BySegment[FeedbackSamples], counted: list[bool]) -> None:
        """Count a batch of feedback, all of it on results of this stage's revision.

        Args:
            samples: what was said.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        for i, gate in enumerate(self.gates):
            evidence = self.evidence[i]
            if counted[i] and gate.metric.is_feedback and not isinstance(evidence, HealthEvidence):
                mine = samples.of(gate.segments)
                control = mine.values(gate.metric, CONTROL)
                candidate = mine.values(gate.metric, CANDIDATE)
                evidence.update(control, candidate)
                self.enough[i] = self.enough[i] or has_enough(gate, evidence)

    def take_heartbeat(self, beat: Heartbeat, counted: list[bool], now_ms: int) -> None:
        """Count a worker's sign of life.

        Args:
            beat: of a worker whose measurements count.
            counted: for each gate whether it takes anything now (false while it warms up).
            now_ms: log time.
        """
        self.health.heard(beat, now_ms)
        if any(c and g.metric is Metric.MEMORY_GROWTH_MB
               for c, g in zip(counted, self.gates, strict=True)):  # fmt: skip
            self.health.weighed(beat, now_ms)
        self.look_at_health(now_ms)

    def look_at_health(self, now_ms: int) -> None:
        """Bring the gates on the analyzers to a moment of log time."""
        for i, gate in enumerate(self.gates):
            evidence = self.evidence[i]
            if isinstance(evidence, HealthEvidence):
                evidence.observe(*self.health.value(gate.metric, now_ms))
                self.enough[i] = evidence.samples >= gate.min_samples

    def observe(self, recent: npt.NDArray[np.float64], now_ms: int) -> None:
        """Tell the timers how the running window looks.

        Too few rows to say are no observation: they neither begin a spell nor end one, unless they
        last longer than the timer's gap.

        Args:
            recent: moments of the running window, shape (arms, gates, 3).
            now_ms: log time.
        """
        for i, timer in enumerate(self.timers):
            if timer is not None:
                breaching = recent_breach(self.gates[i], recent[:, i].tolist())
                if breaching is not None:
                    timer.update(now_ms, breaching=breaching)

    def failing(self) -> list[int]:
        """The guardrails and signals that are certified to be broken now."""
        threshold = -math.log(self.alpha_breach)
        return [
            i
            for i, evidence in enumerate(self.evidence)
            if not evidence.clears(threshold)
            and self.gates[i].role is not _PROMOTION
            and self.verdict(i) is Verdict.FAILED
        ]

    def starved(self) -> list[int]:
        """The gates that cannot be judged, although there were rows enough to."""
        return [
            i
            for i, gate in enumerate(self.gates)
            if not self.enough[i]
            and max(self.candidate_rows[i], self.control_rows[i]) >= STARVED * gate.min_samples
            and self._missing(i) is Verdict.ERROR
        ]

    def exhausted(self) -> list[int]:
        """The promotion gates that have had as many rows as they may, and are not certified."""
        return [
            i
            for i, gate in enumerate(self.gates)
            if gate.max_samples is not None
            and self.evidence[i].samples >= gate.max_samples
            and not self.passes(i)
        ]

    def verdict(self, i: int, *, whether_good: bool = False) -> Verdict:
        """What `report` would say, at less cost.

        Args:
            i: which gate.
            whether_good: without it, Successful is not told from Inconclusive.
        """
        missing = self._missing(i)
        if missing is not None:
            return missing
        if not whether_good and self.evidence[i].clears(-math.log(self.alpha_breach)):
            return Verdict.INCONCLUSIVE
        verdict, _, _ = decide(
            self.evidence[i],
            alpha_breach=self.alpha_breach,
            alpha_good=self.alpha_good if whether_good else None,
            timer=self.timers[i],
        )
        return verdict

    def report(self, i: int, *, with_bounds: bool = True) -> GateReport:
        """A gate's verdict with its reason, and the bounds of its value."""
        return judge(
            self.gates[i],
            self.evidence[i],
            alpha_breach=self.alpha_breach,
            alpha_good=self.alpha_good,
            timer=self.timers[i],
            candidate_rows=self.candidate_rows[i],
            control_rows=self.control_rows[i],
            control_exists=self.control_exists,
            with_bounds=with_bounds,
        )

    def reports(self) -> list[GateReport]:
        """Those of all gates."""
        return [self.report(i) for i in range(len(self.gates))]

    def holds(self, i: int) -> bool:
        """Whether there are rows enough, and nothing speaks against advancing.

        The estimate is on the good side, and no breach is lasting. A gate against a control arm
        that cannot exist holds: the absolute gates watch on. An optional one holds without rows.
        """
        gate, evidence, timer = self.gates[i], self.evidence[i], self.timers[i]
        if not self.control_exists and gate.against is Against.CONTROL:
            return True
        if self._missing(i) is not None:
            return gate.optional
        if evidence.value is None or (timer is not None and timer.since_ms is not None):
            return False
        upper = gate.parsed.upper
        return evidence.value <= evidence.limit if upper else evidence.value >= evidence.limit

    def passes(self, i: int) -> bool:
        """Whether the rollout may advance, as far as this gate goes."""
        gate = self.gates[i]
        if gate.role is not GateRole.PROMOTION:
            return self.holds(i)
        if not self.control_exists and gate.against is Against.CONTROL:
            return True
        if gate.optional and self._missing(i) is not None:
            return True
        return self.verdict(i, whether_good=True) is Verdict.SUCCESSFUL

    def baselines(self) -> dict[str, float]:
        """The control arm's mean of each metric that a gate compares with it, where it has one."""
        return {
            gate.metric: evidence.control_mean
            for gate, evidence in zip(self.gates, self.evidence, strict=True)
            if gate.against is Against.CONTROL
            and isinstance(evidence, ContrastEvidence)
            and evidence.control_samples >= gate.min_samples
        }

    def _missing(self, i: int) -> Verdict | None:
        return missing_verdict(
            self.gates[i],
            self.evidence[i],
            self.candidate_rows[i],
            self.control_rows[i],
            control_exists=self.control_exists,
        )


def new_watch(policy: Policy, *, control_exists: bool = True, restart: int = 0) -> Watch:
    """An empty watch, for a stage that begins.

    Args:
        policy: of the rollout.
        control_exists: whether any user is in the control arm at that stage.
        restart: 0 for a stage that was reached, else the how-manieth resumption of the rollout: it
            spends a share of alpha of its own.
    """
    alpha = gate_alpha(policy.alpha, policy.gates, stages=len(policy.stages), restart=restart)
    return _watch(policy, policy.gates, alpha, control_exists=control_exists)


def watch_after_promotion(policy: Policy, baselines: Mapping[str, float]) -> Watch:
    """An empty watch over a deployment that serves everybody.

    Guardrails and signals go on, with endless change detectors. Where one was held against the
    control arm it is held against the recorded mean of that arm from now on, as a number; so it is
    not against its uncertainty, nor against what changes for everybody, such as the prompts. One
    without such a record is left out.

    Args:
        policy: of the rollout that was promoted.
        baselines: the control arm's last mean, by metric.
    """
    gates = [
        absolute
        for gate in policy.gates
        if gate.role is not GateRole.PROMOTION
        for absolute in _against_record(gate, baselines)
    ]
    alpha = gate_alpha(policy.alpha, gates, stages=1)
    return _watch(
        policy, gates, alpha, control_exists=False, horizon_rows=WATCH_HORIZON_ROWS, endless=True
    )


def _against_record(gate: Gate, baselines: Mapping[str, float]) -> list[Gate]:
    if gate.against is not Against.CONTROL:
        return [gate]
    if gate.metric not in baselines:
        return []
    baseline, objective = baselines[gate.metric], gate.parsed
    limit = (1.0 + objective.limit) * baseline
    if objective.upper:
        limit = max(limit, baseline + gate.floor)
    elif gate.floor:
        limit = min(limit, baseline - gate.floor)
    return [
        msgspec.structs.replace(
            gate,
            against=None,
            floor=0.0,
            objective=f"{'<=' if objective.upper else '>='} {max(limit, 0.0):.6f}",
        )
    ]


def _watch(
    policy: Policy,
    gates: list[Gate],
    alpha: float,
    *,
    control_exists: bool,
    horizon_rows: float = HORIZON_ROWS,
    endless: bool = False,
) -> Watch:
    cap = latency_cap(gates)
    return Watch(
        gates=gates,
        alpha_breach=alpha,
        alpha_good=policy.alpha,
        control_exists=control_exists,
        evidence=[
            evidence_for(
                gate,
                alpha_breach=alpha,
                latency_cap_s=cap,
                horizon_rows=horizon_rows,
                endless=endless,
            )
            for gate in gates
        ],
        timers=[
            SustainedTimer(
                required_ms=round(gate.sustained_seconds * 1000),
                gap_ms=max(_GAP_PANES * policy.windows.pane_ms, policy.windows.window_ms),
            )
            if gate.sustained_seconds
            else None
            for gate in gates
        ],
        candidate_rows=[0] * len(gates),
        control_rows=[0] * len(gates),
        enough=[False] * len(gates),
    )
