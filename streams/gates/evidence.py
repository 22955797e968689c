"""Evidence of every kind behind one surface, so that a gate is judged by one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy.typing as npt

from schemas.policy import Against, Gate, Metric, Statistic
from streams.gates.bernoulli import Bernoulli
from streams.gates.bounded_mean import FRACTIONS, BoundedMean
from streams.gates.change import EMPTY, ChangeDetector, rate_bets
from streams.gates.contrast import Difference, rho_for
from streams.gates.health import HealthEvidence
from streams.gates.kinds import (
    DRIFTS,
    ContrastEvidence,
    MeanEvidence,
    RateEvidence,
    WatchedDifference,
)

__all__ = [
    "HORIZON_ROWS",
    "LATENCY_MIN_ROWS",
    "N_STAR",
    "AnyEvidence",
    "Evidence",
    "evidence_for",
    "latency_cap",
]

HORIZON_ROWS = 100_000.0
"""Half of what a change detector stakes is staked within so many rows of a stage.

A larger one makes later changes cheaper and earlier ones dearer, by the log: ten times more costs
an early change 2.3 of about 15.
"""

N_STAR = 500
"""Effective rows at which a contrast is tightest: a margin that is missed by a fifth of a standard
deviation is found after about so many at alpha 0.002. Half or double of it costs 2 %."""

LATENCY_MIN_ROWS = 400
"""Rows an arm before a contrast of latencies speaks. At 200, the skewness of a small arm of capped
lognormals still doubles or triples the false alarms at alpha 0.0014; at 400 they are below it."""

_EDGE = 1e-9
"""A rate gate at 0 or 1 is tested at this distance from it: its first error is then decisive."""

_MEAN_EDGE = 1e-6
"""The same for a mean of values in [0, 1], whose bets are at most 1 / limit."""


class Evidence(Protocol):
    """What a gate on prompts is judged by. Looked at as often as one likes."""

    @property
    def samples(self) -> int:
        """Rows of the candidate arm."""

    @property
    def control_samples(self) -> int:
        """Rows of the control arm; 0 where none is compared."""

    @property
    def value(self) -> float | None:
        """The statistic of the candidate arm; None without rows."""

    @property
    def limit(self) -> float:
        """What it is held against."""

    @property
    def log_e_breach(self) -> float:
        """Log e-value against "the objective holds"; 0 while it cannot be judged."""

    def clears(self, log_threshold: float) -> bool:
        """Whether `log_e_breach` is below a positive number at a glance; False when unsure."""

    @property
    def log_e_good(self) -> float:
        """Log e-value against "the objective is broken"; 0 while it cannot be judged."""

    def lower(self, alpha: float) -> float:
        """Lower confidence bound of the value, given the limit; wrong ever with P <= alpha."""

    def upper(self, alpha: float) -> float:
        """Upper confidence bound of the value, given the limit; wrong ever with P <= alpha."""

    def update(self, control: npt.ArrayLike, candidate: npt.ArrayLike) -> None:
        """Count a batch of what the gate is tested on, one number a row of each arm.

        Raises:
            ValueError: a number that cannot be; nothing has been counted then.
        """


AnyEvidence = RateEvidence | MeanEvidence | ContrastEvidence | HealthEvidence
"""For decoding: msgspec tells them apart by their tag."""


def latency_cap(gates: list[Gate]) -> float | None:
    """What a latency counts as at most when means are compared, in seconds.

    Twice the least latency that a quantile gate of the policy allows; None without such a gate.
    See :class:`streams.gates.contrast.Difference` for why.
    """
    limits = [
        gate.parsed.limit
        for gate in gates
        if gate.metric is Metric.PROCESSING_SECONDS and gate.statistic.quantile is not None
    ]
    return 2.0 * min(limits) if limits else None


def evidence_for(
    gate: Gate,
    *,
    alpha_breach: float,
    latency_cap_s: float | None = None,
    horizon_rows: float = HORIZON_ROWS,
    endless: bool = False,
) -> AnyEvidence:
    """Empty evidence for a gate, at the start of a stage.

    Its rows are those of `streams.metrics.gate_samples`: 0 or 1 for rates and quantiles, the
    difference to the objective for ``against: rules``, else the metric.

    Args:
        gate: what will be judged.
        alpha_breach: the gate's share of alpha in this stage; shapes a contrast's mixture.
        latency_cap_s: see `latency_cap`.
        horizon_rows: see :class:`streams.gates.change.ChangeDetector`.
        endless: see there; for the watch after a promotion.
    """

    def change(bets: int) -> ChangeDetector:
        return ChangeDetector(
            log_capital=[EMPTY] * bets, horizon_rows=float(horizon_rows), endless=endless
        )

    objective, quantile = gate.parsed, gate.statistic.quantile
    if gate.metric.is_health:
        return HealthEvidence(limit=objective.limit)
    if gate.metric.is_rate or quantile is not None:
        limit = objective.limit if quantile is None else 1.0 - quantile
        p0 = min(max(limit, _EDGE), 1.0 - _EDGE)
        bets = rate_bets(p0, above=objective.upper).shape[1]
        return RateEvidence(too_high=objective.upper, counts=Bernoulli(p0=p0), change=change(bets))
    bounded = gate.metric is not Metric.PROCESSING_SECONDS
    if bounded and not objective.relative and gate.statistic is Statistic.MEAN:
        m0 = min(max(objective.limit, _MEAN_EDGE), 1.0 - _MEAN_EDGE)
        return MeanEvidence(
            too_high=objective.upper, bounded=BoundedMean(m0=m0), change=change(len(FRACTIONS))
        )
    least = max(gate.min_samples, 2 if bounded else LATENCY_MIN_ROWS)
    cap = None if bounded else latency_cap_s
    return _contrast(gate, rho_for(N_STAR, alpha_breach), least, cap, change)


def _contrast(
    gate: Gate,
    rho: float,
    min_rows: int,
    cap: float | None,
    change: Callable[[int], ChangeDetector],
) -> ContrastEvidence:
    objective = gate.parsed
    limits = [(1.0 + objective.limit, 0.0)]
    if gate.against is Against.CONTROL and gate.floor:
        limits.append((1.0, gate.floor if objective.upper else -gate.floor))
    elif gate.against is not Against.CONTROL:
        # A paired row is the difference to the objective already.
        limits = [(1.0, 0.0 if gate.against is Against.RULES else objective.limit)]
    parts = [
        WatchedDifference(
            too_high=objective.upper,
            difference=Difference(
                paired=gate.against is not Against.CONTROL,
                rho=rho,
                min_rows=min_rows,
                factor=factor,
                offset=offset,
                cap=cap,
            ),
            change=change(len(DRIFTS)),
        )
        for factor, offset in limits
    ]
    return ContrastEvidence(too_high=objective.upper, parts=parts)
