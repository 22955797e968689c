"""driftgate's guardrails for many rollouts at once: the package's own formulas on arrays.

`tests/unit/streams/gates/test_vectorised.py` holds them against the evidence classes, row by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.gates_world import BATCH_SECONDS, Batch
from schemas.policy import Against, Gate, GateRole, Metric, Policy
from streams.gates.bernoulli import log_e_above, log_e_below
from streams.gates.bounded_mean import FRACTIONS, bets, log_growth
from streams.gates.change import EMPTY, rate_bets, rate_growth, start_mass, step
from streams.gates.checks import log_mean_exp
from streams.gates.contrast import log_e_normal, rho_for
from streams.gates.evidence import (
    HORIZON_ROWS,
    LATENCY_MIN_ROWS,
    N_STAR,
    latency_cap,
)
from streams.gates.judge import gate_alpha
from streams.gates.kinds import BLOCK_ROWS, DRIFTS

__all__ = ["ContrastMany", "Driftgate", "MeanMany", "RateMany", "rate_rows"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def rate_rows(gate: Gate, batch: Batch) -> Floats:
    """What a rate or quantile gate counts in a batch; shape (rollouts,)."""
    if gate.statistic.quantile is not None:
        return (batch.latency > gate.parsed.limit).sum(axis=1).astype(np.float64)
    return batch.system_errors if gate.metric is Metric.SYSTEM_ERROR else batch.errors


class _Change:
    """`streams.gates.change.ChangeDetector`."""

    def __init__(self, rollouts: int, n_bets: int) -> None:
        self.capital = np.full((rollouts, n_bets), EMPTY)
        self.rows = 0

    def update(self, growth: Floats, rows: int) -> None:
        mass = start_mass(self.rows, rows, HORIZON_ROWS, endless=False)
        self.capital = np.maximum(step(self.capital, growth, mass), EMPTY)
        self.rows += rows

    @property
    def log_e(self) -> Floats:
        return log_mean_exp(self.capital)


class RateMany:
    """`streams.gates.evidence.RateEvidence`."""

    def __init__(self, gate: Gate, rollouts: int) -> None:
        self.gate = gate
        self.too_high = gate.parsed.upper
        quantile = gate.statistic.quantile
        self.p0 = gate.parsed.limit if quantile is None else 1.0 - quantile
        self.ratios = rate_bets(self.p0, above=self.too_high)
        self.rows = 0
        self.hits = np.zeros(rollouts)
        self.change = _Change(rollouts, self.ratios.shape[1])
        # Recent rows, for the gate that must last.
        self.window: list[Floats] = []
        self.spell = np.zeros(rollouts, dtype=np.int64)

    def update(self, batch: Batch) -> None:
        """Count a batch of every rollout."""
        rows, hits = batch.arms.candidate, rate_rows(self.gate, batch)
        self.rows += rows
        self.hits = self.hits + hits
        self.change.update(rate_growth(np.full_like(hits, rows), hits, self.ratios), rows)
        if self.gate.sustained_seconds:
            self.window = [*self.window[-(60 // BATCH_SECONDS) + 1 :], hits / rows]
            breaking = np.mean(self.window, axis=0) > self.p0
            self.spell = np.where(breaking, self.spell + BATCH_SECONDS, 0)

    @property
    def log_e_breach(self) -> Floats:
        """Shape (rollouts,)."""
        log_e = log_e_above if self.too_high else log_e_below
        start = log_e(self.rows, self.hits, self.p0)
        joined: Floats = np.logaddexp(start, self.change.log_e) - np.log(2.0)
        return joined

    @property
    def lasting(self) -> Mask:
        """Whether recent rows have broken the objective for long enough; shape (rollouts,)."""
        # A spell of one batch has lasted for no time yet.
        lasting: Mask = self.spell - BATCH_SECONDS >= self.gate.sustained_seconds
        return lasting if self.gate.sustained_seconds else np.ones_like(lasting)


class MeanMany:
    """`streams.gates.evidence.MeanEvidence`."""

    def __init__(self, gate: Gate, rollouts: int) -> None:
        self.gate = gate
        self.m0 = gate.parsed.limit
        self.stakes = bets(self.m0, above=gate.parsed.upper)
        self.rows = 0
        self.log_capital = np.zeros((rollouts, len(FRACTIONS)))
        self.change = _Change(rollouts, len(FRACTIONS))

    def update(self, batch: Batch) -> None:
        """Count a batch of every rollout."""
        values = batch.coherence if self.gate.metric is Metric.COHERENCE else batch.relevance
        growth = log_growth(values, self.m0, self.stakes)
        self.rows += batch.arms.candidate
        self.log_capital += growth
        self.change.update(growth, batch.arms.candidate)

    @property
    def log_e_breach(self) -> Floats:
        """Shape (rollouts,)."""
        start = log_mean_exp(self.log_capital)
        joined: Floats = np.logaddexp(start, self.change.log_e) - np.log(2.0)
        return joined

    @property
    def lasting(self) -> Mask:
        """Nothing has to last."""
        return np.ones(len(self.log_capital), dtype=np.bool_)


class _MomentsMany:
    def __init__(self, rollouts: int) -> None:
        self.rows = 0
        self.mean = np.zeros(rollouts)
        self.squares = np.zeros(rollouts)

    def update(self, values: Floats) -> None:
        rows = values.shape[1]
        mean = values.mean(axis=1)
        squares = ((values - mean[:, None]) ** 2).sum(axis=1)
        both = self.rows + rows
        delta = mean - self.mean
        self.squares += squares + delta**2 * (self.rows * rows / both)
        self.mean += delta * (rows / both)
        self.rows = both

    @property
    def variance(self) -> Floats:
        return self.squares / max(self.rows - 1, 1)


class ContrastMany:
    """`streams.gates.evidence.ContrastEvidence` against the control arm, without a floor."""

    def __init__(self, gate: Gate, rollouts: int, alpha: float, cap: float | None) -> None:
        if gate.floor or gate.against is not Against.CONTROL:
            raise ValueError(f"{gate.name}: the benchmark compares with a control, without a floor")
        self.gate = gate
        self.sign = 1.0 if gate.parsed.upper else -1.0
        self.factor = 1.0 + gate.parsed.limit
        self.rho = rho_for(N_STAR, alpha)
        latency = gate.metric is Metric.PROCESSING_SECONDS
        self.cap = cap if latency else None
        self.least = max(gate.min_samples, LATENCY_MIN_ROWS if latency else 2)
        self.control, self.candidate = _MomentsMany(rollouts), _MomentsMany(rollouts)
        self.block = (_MomentsMany(rollouts), _MomentsMany(rollouts))
        self.change = _Change(rollouts, len(DRIFTS))
        self.rollouts = rollouts

    def _rows(self, batch: Batch) -> tuple[Floats, Floats]:
        if self.gate.metric is Metric.SCORE:
            return batch.score_control, batch.score
        cap = np.inf if self.cap is None else self.cap
        return np.minimum(batch.latency_control, cap), np.minimum(batch.latency, cap)

    def update(self, batch: Batch) -> None:
        """Count a batch of every rollout."""
        control, candidate = self._rows(batch)
        self.control.update(control)
        self.candidate.update(candidate)
        if not self.speaks:
            return
        self.block[0].update(control)
        self.block[1].update(candidate)
        m, n = self.block[0].rows, self.block[1].rows
        if min(m, n) < BLOCK_ROWS:
            return
        gap = self.sign * (self.block[1].mean - self.factor * self.block[0].mean)
        variance = self.candidate.variance / n + self.factor**2 * self.control.variance / m
        t, drifts = n * m / (n + m), np.array(DRIFTS)
        z = gap / np.sqrt(variance)
        self.change.update(drifts * (np.sqrt(t) * z)[:, None] - drifts**2 * (t / 2.0), n)
        self.block = (_MomentsMany(self.rollouts), _MomentsMany(self.rollouts))

    @property
    def speaks(self) -> bool:
        """Whether both arms have rows enough."""
        return min(self.control.rows, self.candidate.rows) >= self.least

    @property
    def rows(self) -> int:
        """Of the smaller arm."""
        return min(self.control.rows, self.candidate.rows)

    @property
    def log_e_breach(self) -> Floats:
        """Shape (rollouts,)."""
        if not self.speaks:
            return np.zeros(self.rollouts)
        m, n = self.control.rows, self.candidate.rows
        error = np.sqrt(self.candidate.variance / n + self.factor**2 * self.control.variance / m)
        z = self.sign * (self.candidate.mean - self.factor * self.control.mean) / error
        start = log_e_normal(z, n * m / (n + m), self.rho)
        joined: Floats = np.logaddexp(start, self.change.log_e) - np.log(2.0)
        return joined

    @property
    def lasting(self) -> Mask:
        """Nothing has to last."""
        return np.ones(self.rollouts, dtype=np.bool_)


class Driftgate:
    """Every guardrail of a policy, looked at after every batch."""

    name = "driftgate"

    def __init__(self, policy: Policy, rollouts: int) -> None:
        self.policy = policy
        self.rollouts = rollouts
        self.alpha = gate_alpha(policy.alpha, policy.gates, stages=len(policy.stages))
        self.first: dict[str, Floats] = {}
        self.begin_stage()

    def begin_stage(self) -> None:
        """Evidence begins anew."""
        cap = latency_cap(self.policy.gates)
        self.gates: list[RateMany | MeanMany | ContrastMany] = []
        for gate in self.policy.gates:
            if gate.role is not GateRole.GUARDRAIL:
                continue
            if gate.metric.is_rate or gate.statistic.quantile is not None:
                self.gates.append(RateMany(gate, self.rollouts))
            elif gate.against is Against.CONTROL:
                self.gates.append(ContrastMany(gate, self.rollouts, self.alpha, cap))
            else:
                self.gates.append(MeanMany(gate, self.rollouts))

    def look(self, batch: Batch) -> dict[str, Mask]:
        """Which rollouts each gate fails now, by gate; each of shape (rollouts,)."""
        failed = {}
        for watched in self.gates:
            watched.update(batch)
            enough = watched.rows >= watched.gate.min_samples
            certain = watched.log_e_breach >= -np.log(self.alpha)
            failed[watched.gate.name] = certain & watched.lasting & enough
        return failed
