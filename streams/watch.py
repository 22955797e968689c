"""The watch over a stage: the evidence of every gate since it, or its resumption, began."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.control import GateReport, Verdict
from schemas.policy import Against, Gate, GateRole, Policy
from streams.feedback import FeedbackSamples
from streams.gates.evidence import AnyEvidence, evidence_for, latency_cap
from streams.gates.judge import STARVED, decide, gate_alpha, judge, missing_verdict
from streams.gates.kinds import ContrastEvidence, MeanEvidence, RateEvidence
from streams.gates.sustained import SustainedTimer
from streams.metrics import CANDIDATE, CONTROL
from streams.samples import Samples

__all__ = ["Watch", "new_watch"]

# Looked up once: in Python 3.11 each access to a member through its class runs a descriptor.
_RULES, _PROMOTION = Against.RULES, GateRole.PROMOTION

_GAP_PANES = 3
"""A breach that must last is interrupted by so many panes without an observation."""


class Watch(msgspec.Struct, kw_only=True):
    """Evidence, one for each gate of the policy in its order; changed in place.

    Gates are named by their place in the policy. Looking is cheap, and is done at every batch;
    a report with its reason and bounds is made where something is said.
    """

    alpha_breach: float
    """What each gate may spend on ever calling this candidate a breach, in this period."""
    evidence: list[AnyEvidence]
    timers: list[SustainedTimer | None]
    """Of the gates whose breach must last."""
    candidate_rows: list[int]
    """Rows of the candidate arm that a gate could have counted, by gate: with its metric or
    without, after its warm-up."""
    control_rows: list[int]
    enough: list[bool]
    """Whether a gate has rows enough to be judged, as it then has for the rest of the period."""

    def take(self, samples: Samples, gates: list[Gate], counted: list[bool]) -> None:
        """Count a batch, all of it made under this stage's revision.

        Args:
            samples: what was measured.
            gates: of the policy.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        control, candidate = samples.meant(CONTROL), samples.meant(CANDIDATE)
        for i, gate in enumerate(gates):
            if counted[i]:
                self.control_rows[i] += control
                self.candidate_rows[i] += candidate
                if gate.metric.is_feedback:
                    continue
                _count(gate, self.evidence[i], samples)
                self.enough[i] = self.enough[i] or _has_enough(gate, self.evidence[i])

    def take_feedback(
        self, samples: FeedbackSamples, gates: list[Gate], counted: list[bool]
    ) -> None:
        """Count a batch of feedback, all of it on results of this stage's revision.

        Args:
            samples: what was said.
            gates: of the policy.
            counted: for each gate whether it takes rows now (false while it warms up).
        """
        for i, gate in enumerate(gates):
            if counted[i] and gate.metric.is_feedback:
                control = samples.values(gate.metric, CONTROL)
                candidate = samples.values(gate.metric, CANDIDATE)
                self.evidence[i].update(control, candidate)
                self.enough[i] = self.enough[i] or _has_enough(gate, self.evidence[i])

    def observe(self, gates: list[Gate], recent: npt.NDArray[np.float64], now_ms: int) -> None:
        """Tell the timers how the running window looks.

        Too few rows to say are no observation: they neither begin a spell nor end one, unless they
        last longer than the timer's gap.

        Args:
            gates: of the policy.
            recent: moments of the running window, shape (arms, gates, 3).
            now_ms: log time.
        """
        for i, timer in enumerate(self.timers):
            if timer is not None:
                breaching = _recent_breach(gates[i], recent[:, i].tolist())
                if breaching is not None:
                    timer.update(now_ms, breaching=breaching)

    def failing(self, gates: list[Gate], *, control_exists: bool) -> list[int]:
        """The guardrails and signals that are certified to be broken now."""
        threshold = -math.log(self.alpha_breach)
        found = []
        for i, evidence in enumerate(self.evidence):
            if evidence.clears(threshold) or gates[i].role is _PROMOTION:
                continue
            if self.verdict(i, gates[i], control_exists=control_exists) is Verdict.FAILED:
                found.append(i)
        return found

    def starved(self, gates: list[Gate], *, control_exists: bool) -> list[int]:
        """The gates that cannot be judged, although there were rows enough to."""
        return [
            i
            for i, gate in enumerate(gates)
            if not self.enough[i]
            and max(self.candidate_rows[i], self.control_rows[i]) >= STARVED * gate.min_samples
            and self._missing(i, gate, control_exists=control_exists) is Verdict.ERROR
        ]

    def verdict(
        self, i: int, gate: Gate, *, control_exists: bool, alpha_good: float | None = None
    ) -> Verdict:
        """What `report` would say, at less cost.

        Args:
            i: which gate.
            gate: the same.
            control_exists: whether any user is in the control arm.
            alpha_good: the policy's alpha; without it, Successful is not told from Inconclusive.
        """
        missing = self._missing(i, gate, control_exists=control_exists)
        if missing is not None:
            return missing
        if alpha_good is None and self.evidence[i].clears(-math.log(self.alpha_breach)):
            return Verdict.INCONCLUSIVE
        verdict, _, _ = decide(
            self.evidence[i],
            alpha_breach=self.alpha_breach,
            alpha_good=alpha_good,
            timer=self.timers[i],
        )
        return verdict

    def report(
        self, i: int, policy: Policy, *, control_exists: bool, with_bounds: bool = True
    ) -> GateReport:
        """A gate's verdict with its reason, and the bounds of its value."""
        return judge(
            policy.gates[i],
            self.evidence[i],
            alpha_breach=self.alpha_breach,
            alpha_good=policy.alpha,
            timer=self.timers[i],
            candidate_rows=self.candidate_rows[i],
            control_rows=self.control_rows[i],
            control_exists=control_exists,
            with_bounds=with_bounds,
        )

    def holds(self, i: int, gate: Gate, *, control_exists: bool) -> bool:
        """Whether there are rows enough, and nothing speaks against advancing.

        The estimate is on the good side, and no breach is lasting. A gate against a control arm
        that cannot exist holds: the absolute gates watch on. An optional one holds without rows.
        """
        if not control_exists and gate.against is Against.CONTROL:
            return True
        if self._missing(i, gate, control_exists=control_exists) is not None:
            return gate.optional
        evidence, timer = self.evidence[i], self.timers[i]
        if evidence.value is None or (timer is not None and timer.since_ms is not None):
            return False
        upper = gate.parsed.upper
        return evidence.value <= evidence.limit if upper else evidence.value >= evidence.limit

    def passes(self, i: int, policy: Policy, *, control_exists: bool) -> bool:
        """Whether the rollout may advance, as far as this gate goes."""
        gate = policy.gates[i]
        if gate.role is not GateRole.PROMOTION:
            return self.holds(i, gate, control_exists=control_exists)
        if not control_exists and gate.against is Against.CONTROL:
            return True
        if gate.optional and self._missing(i, gate, control_exists=control_exists) is not None:
            return True
        verdict = self.verdict(i, gate, control_exists=control_exists, alpha_good=policy.alpha)
        return verdict is Verdict.SUCCESSFUL

    def _missing(self, i: int, gate: Gate, *, control_exists: bool) -> Verdict | None:
        return missing_verdict(
            gate,
            self.evidence[i],
            self.candidate_rows[i],
            self.control_rows[i],
            control_exists=control_exists,
        )


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
        candidate_rows=[0] * len(gates),
        control_rows=[0] * len(gates),
        enough=[False] * len(gates),
    )


def _has_enough(gate: Gate, evidence: AnyEvidence) -> bool:
    if gate.against is Against.CONTROL and evidence.control_samples < gate.min_samples:
        return False
    return evidence.samples >= gate.min_samples


def _count(gate: Gate, evidence: AnyEvidence, samples: Samples) -> None:
    """Equal to an update with `streams.metrics.gate_samples`, to the bit."""
    metric = gate.metric
    match evidence:
        case RateEvidence():
            if gate.statistic.quantile is None:
                evidence.update_counts(*samples.rate(metric, CANDIDATE))
            else:
                values = samples.values(metric, CANDIDATE)
                hits = int(np.count_nonzero(values > gate.parsed.limit))
                evidence.update_counts(values.size, hits)
        case MeanEvidence():
            values = samples.values(metric, CANDIDATE)
            if values.size:
                evidence.update_checked(values)
        case ContrastEvidence():
            difference = evidence.parts[0].difference
            candidate = samples.values(metric, CANDIDATE)
            if gate.against is _RULES:
                candidate = candidate - (1.0 + gate.parsed.limit) * samples.rules_scores(CANDIDATE)
            control = samples.values(metric, CONTROL)[: 0 if difference.paired else None]
            evidence.update_moments(
                difference.moments_checked(control), difference.moments_checked(candidate)
            )


def _recent_breach(gate: Gate, moments: list[list[float]]) -> bool | None:
    """Whether the running window's estimate is beyond the objective; None with too few rows."""
    n, total, _ = moments[CANDIDATE]
    control_n, control_total, _ = moments[CONTROL]
    against_control = gate.against is Against.CONTROL
    if n < gate.min_samples or (against_control and control_n < gate.min_samples):
        return None
    objective = gate.parsed
    if gate.statistic.quantile is not None:
        limit = 1.0 - gate.statistic.quantile
    elif against_control:
        control = control_total / control_n
        limit = (1.0 + objective.limit) * control
        if gate.floor:
            floored = control + (gate.floor if objective.upper else -gate.floor)
            limit = max(limit, floored) if objective.upper else min(limit, floored)
    else:
        limit = 0.0 if gate.against is Against.RULES else objective.limit
    return total / n > limit if objective.upper else total / n < limit
