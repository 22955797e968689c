"""What others do, and the optimum, on the same rows; each looks at every rollout at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import mannwhitneyu

from benchmarks.gates_detectors import rate_rows
from benchmarks.gates_world import BATCH_SECONDS, Batch
from schemas.policy import Against, Gate, GateRole, Metric, Policy

__all__ = ["MannWhitney", "Oracle", "RepeatedZ", "Thresholds"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_WINDOW = 60 // BATCH_SECONDS
"""Batches a minute: Argo's, Flagger's and Kayenta's usual interval."""


def _guardrails(policy: Policy) -> list[Gate]:
    return [gate for gate in policy.gates if gate.role is GateRole.GUARDRAIL]


@dataclass
class _Sums:
    """Counts, sums and sums of squares of one gate's rows, candidate and control."""

    gate: Gate
    rows: float = 0.0
    total: Floats | float = 0.0
    squares: Floats | float = 0.0
    control_rows: float = 0.0
    control_total: Floats | float = 0.0
    control_squares: Floats | float = 0.0

    def update(self, batch: Batch) -> None:
        gate = self.gate
        self.rows += batch.arms.candidate
        if gate.metric.is_rate or gate.statistic.quantile is not None:
            self.total = self.total + rate_rows(gate, batch)
            return
        control, candidate = {
            Metric.SCORE: (batch.score_control, batch.score),
            Metric.COHERENCE: (None, batch.coherence),
            Metric.RELEVANCE: (None, batch.relevance),
            Metric.PROCESSING_SECONDS: (batch.latency_control, batch.latency),
        }[gate.metric]
        self.total = self.total + candidate.sum(axis=1)
        self.squares = self.squares + (candidate**2).sum(axis=1)
        if control is not None:
            self.control_rows += batch.arms.control
            self.control_total = self.control_total + control.sum(axis=1)
            self.control_squares = self.control_squares + (control**2).sum(axis=1)

    def excess(self) -> tuple[Floats, Floats]:
        """How far the estimate is beyond the limit, and its standard error."""
        gate, objective = self.gate, self.gate.parsed
        mean = np.asarray(self.total) / self.rows
        if gate.metric.is_rate or gate.statistic.quantile is not None:
            quantile = gate.statistic.quantile
            limit = objective.limit if quantile is None else 1.0 - quantile
            error = np.full_like(mean, np.sqrt(limit * (1 - limit) / self.rows))
            return mean - limit, error
        variance = (np.asarray(self.squares) / self.rows - mean**2) / self.rows
        limits = np.asarray(objective.limit)
        if gate.against is Against.CONTROL:
            control = np.asarray(self.control_total) / self.control_rows
            spread = np.asarray(self.control_squares) / self.control_rows - control**2
            factor = 1.0 + objective.limit
            variance = variance + factor**2 * spread / self.control_rows
            limits = factor * control
        sign = 1.0 if objective.upper else -1.0
        return sign * (mean - limits), np.sqrt(variance)


class Thresholds:
    """A number against a threshold every minute, as Argo Rollouts does.

    A gate fails when more than `failure_limit` of its measurements have failed; one that must be
    sustained for five minutes when five in a row have.
    """

    def __init__(self, policy: Policy, failure_limit: int) -> None:
        self.policy = policy
        self.failure_limit = failure_limit
        self.begin_stage()

    def begin_stage(self) -> None:
        """A new analysis run."""
        self.batches = 0
        self.sums = [_Sums(gate) for gate in _guardrails(self.policy)]
        self.failures: list[npt.NDArray[np.int64] | int] = [0] * len(self.sums)

    def look(self, batch: Batch) -> Mask:
        """Which rollouts fail now; shape (rollouts,)."""
        for sums in self.sums:
            sums.update(batch)
        self.batches += 1
        failed = np.zeros(len(batch.errors), dtype=np.bool_)
        if self.batches % _WINDOW:
            return failed
        for i, sums in enumerate(self.sums):
            bad = sums.excess()[0] > 0
            needed = self.failure_limit + 1
            counted = np.asarray(self.failures[i]) + bad
            if sums.gate.sustained_seconds:
                needed = round(sums.gate.sustained_seconds / (_WINDOW * BATCH_SECONDS))
                counted = np.where(bad, counted, 0)
            self.failures[i] = counted
            failed |= counted >= needed
        self.sums = [_Sums(sums.gate) for sums in self.sums]
        return failed


class RepeatedZ:
    """A one-sided z-test of each gate on all rows of the stage, repeated after every batch."""

    def __init__(self, policy: Policy, alpha: float) -> None:
        self.policy = policy
        self.critical = -float(ndtri(alpha))
        self.begin_stage()

    def begin_stage(self) -> None:
        """Counting begins anew."""
        self.sums = [_Sums(gate) for gate in _guardrails(self.policy)]

    def look(self, batch: Batch) -> Mask:
        """Which rollouts fail now; shape (rollouts,)."""
        failed = np.zeros(len(batch.errors), dtype=np.bool_)
        for sums in self.sums:
            sums.update(batch)
            if sums.rows >= sums.gate.min_samples and (
                sums.gate.against is None or sums.control_rows >= sums.gate.min_samples
            ):
                excess, error = sums.excess()
                failed |= excess > self.critical * error
        return failed


class MannWhitney:
    """Kayenta's judge: candidate against control, a point a minute, every five minutes from ten on.

    A metric is bad when the two-sided 98 % confidence interval of the location shift lies wholly on
    the bad side of 0 (the same as p < 0.02 there), and each metric is critical. Coherence and
    relevance are left out: the control arm has none. It knows no margin of 10 % or 5 %. As its
    manual asks, both arms are of equal size: surplus rows of the larger one are left out (points of
    sparse errors would differ by the number of their rows alone).
    """

    _EVERY, _LEAST = 5, 10

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.begin_stage()

    def _thinned(self, hits: Floats, rows: int, kept: int) -> Floats:
        """How many of the hits are among some of the rows, as a rate."""
        among = hits.astype(np.int64)
        return self.rng.hypergeometric(among, rows - among, kept) / kept

    def begin_stage(self) -> None:
        """A new canary analysis."""
        self.batches = 0
        self.minute: list[tuple[Floats, ...]] = []
        self.points: list[tuple[Floats, ...]] = []

    def look(self, batch: Batch) -> Mask:
        """Which rollouts fail now; shape (rollouts,)."""
        m, n = batch.arms.control, batch.arms.candidate
        kept = min(m, n)
        self.minute.append(
            (
                batch.latency_control[:, :kept].mean(axis=1),
                batch.latency[:, :kept].mean(axis=1),
                -batch.score_control[:, :kept].mean(axis=1),
                -batch.score[:, :kept].mean(axis=1),
                self._thinned(batch.errors_control, m, kept),
                self._thinned(batch.errors, n, kept),
                self._thinned(batch.system_errors_control, m, kept),
                self._thinned(batch.system_errors, n, kept),
            )
        )
        self.batches += 1
        failed = np.zeros(len(batch.errors), dtype=np.bool_)
        if self.batches % _WINDOW:
            return failed
        columns = zip(*self.minute, strict=True)
        self.points.append(tuple(np.mean(column, axis=0) for column in columns))
        self.minute = []
        if len(self.points) < self._LEAST or len(self.points) % self._EVERY:
            return failed
        series = [np.stack(column, axis=1) for column in zip(*self.points, strict=True)]
        for control, candidate in zip(series[::2], series[1::2], strict=True):
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                # Where no point differs there is no p-value, and nothing is bad.
                warnings.simplefilter("ignore")
                test = mannwhitneyu(candidate, control, axis=1, method="asymptotic")
            higher = test.statistic > control.shape[1] ** 2 / 2
            failed |= (test.pvalue < 0.02) & higher
        return failed


@dataclass
class Oracle:
    """Wald's SPRT that knows the true effect and the variances, at a gate's own alpha.

    The optimum for its two simple hypotheses (Wald and Wolfowitz 1948): a Bernoulli likelihood
    ratio for the error rate, a Gaussian one for the difference of means that the gate is about.
    """

    alpha: float
    kind: str
    null: float
    truth: float
    """Rates, or for a difference 0 and the true one."""
    factor: float = 1.0
    variances: tuple[float, float] = (0.0, 0.0)
    """Of a row of the control and of the candidate."""
    log_ratio: Floats | float = field(default=0.0)

    def begin_stage(self) -> None:
        """Counting begins anew."""
        self.log_ratio = 0.0

    def look(self, batch: Batch) -> Mask:
        """Which rollouts fail now; shape (rollouts,)."""
        n, m = batch.arms.candidate, batch.arms.control
        if self.kind == "error":
            hit = np.log(self.truth / self.null)
            miss = np.log1p(-self.truth) - np.log1p(-self.null)
            gain = batch.errors * hit + (n - batch.errors) * miss
        else:
            control, candidate = (
                (batch.latency_control, batch.latency)
                if self.kind == "latency"
                else (batch.score_control, batch.score)
            )
            difference = candidate.mean(axis=1) - self.factor * control.mean(axis=1)
            variance = self.variances[1] / n + self.factor**2 * self.variances[0] / m
            gain = (self.truth * difference - self.truth**2 / 2) / variance
        self.log_ratio = self.log_ratio + gain
        return np.asarray(self.log_ratio) >= -np.log(self.alpha)
