"""The simulated service: rows of two arms, for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH_ROWS", "BATCH_SECONDS", "Arms", "Batch", "World", "draw"]

Floats = npt.NDArray[np.float64]

BATCH_ROWS = 100
"""Rows of a measurement batch, both arms together."""
BATCH_SECONDS = 4
"""Log time between two batches: 25 prompts a second."""

_LATENCY_CV = 0.6
_SCORE_CONCENTRATION = 12.8
"""Of a Beta: a score of 0.75 then has a standard deviation of 0.117, a CV of 16 %."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What is true: means and rates of the candidate, and of the control where it differs."""

    latency_s: float = 0.2
    """Mean of the control; lognormal with a CV of 0.6."""
    latency_factor: float = 1.0
    score: float = 0.75
    """Mean of the control; Beta."""
    score_factor: float = 1.0
    coherence: float = 0.75
    relevance: float = 0.66
    error: float = 0.005
    """Semantic errors, fallbacks."""
    control_error: float = 0.005
    system_error: float = 0.0005

    def with_(self, **changes: float) -> World:
        """The same but for some values."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Rows of each arm in a batch."""

    control: int
    candidate: int

    @classmethod
    def of(cls, share: float) -> Arms:
        """A batch at a candidate's share of the users."""
        candidate = round(BATCH_ROWS * share)
        return cls(control=BATCH_ROWS - candidate, candidate=candidate)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of every rollout; arrays of shape (rollouts, rows) or (rollouts,)."""

    arms: Arms
    latency_control: Floats
    latency: Floats
    score_control: Floats
    score: Floats
    coherence: Floats
    relevance: Floats
    errors_control: Floats
    errors: Floats
    system_errors_control: Floats
    system_errors: Floats


def draw(world: World, arms: Arms, rollouts: int, rng: np.random.Generator) -> Batch:
    """One batch of every rollout."""
    sigma = np.sqrt(np.log1p(_LATENCY_CV**2))
    candidate, control = (rollouts, arms.candidate), (rollouts, arms.control)

    def latency(mean: float, shape: tuple[int, int]) -> Floats:
        drawn = rng.standard_normal(shape)
        drawn *= sigma
        drawn += np.log(mean) - sigma**2 / 2
        return np.exp(drawn, out=drawn)

    def beta(mean: float, shape: tuple[int, int]) -> Floats:
        return rng.beta(mean * _SCORE_CONCENTRATION, (1 - mean) * _SCORE_CONCENTRATION, shape)

    def hits(rows: int, rate: float) -> Floats:
        return rng.binomial(rows, rate, rollouts).astype(np.float64)

    return Batch(
        arms=arms,
        latency_control=latency(world.latency_s, control),
        latency=latency(world.latency_s * world.latency_factor, candidate),
        score_control=beta(world.score, control),
        score=beta(world.score * world.score_factor, candidate),
        coherence=beta(world.coherence, candidate),
        relevance=beta(world.relevance, candidate),
        errors_control=hits(arms.control, world.control_error),
        errors=hits(arms.candidate, world.error),
        system_errors_control=hits(arms.control, world.system_error),
        system_errors=hits(arms.candidate, world.system_error),
    )
