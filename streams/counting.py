"""From a batch's rows to the evidence of one gate."""

from __future__ import annotations

import numpy as np

from schemas.policy import Against, Gate
from streams.gates.evidence import AnyEvidence
from streams.gates.kinds import ContrastEvidence, MeanEvidence, RateEvidence
from streams.metrics import CANDIDATE, CONTROL
from streams.samples import Samples

__all__ = ["count_rows", "has_enough", "recent_breach"]

# Looked up once: in Python 3.11 each access to a member through its class runs a descriptor.
_RULES = Against.RULES


def has_enough(gate: Gate, evidence: AnyEvidence) -> bool:
    """Whether a gate has rows enough to be judged."""
    if gate.against is Against.CONTROL and evidence.control_samples < gate.min_samples:
        return False
    return evidence.samples >= gate.min_samples


def count_rows(gate: Gate, evidence: AnyEvidence, samples: Samples) -> None:
    """Count a batch in a gate's evidence.

    Equal to an update with `streams.metrics.gate_samples`, to the bit.
    """
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


def recent_breach(gate: Gate, moments: list[list[float]]) -> bool | None:
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
