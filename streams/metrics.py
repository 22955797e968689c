"""From measured rows to the numbers that a metric is about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.log import RowFlag, Rows
from schemas.policy import Against, Gate, Metric

__all__ = ["CANDIDATE", "CONTROL", "gate_samples", "metric_samples"]

CONTROL, CANDIDATE = 0, 1
"""Indices of the arms in arrays with an arm axis."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def metric_samples(metric: Metric, rows: Rows) -> tuple[Floats, Mask]:
    """The values of a metric, and for which rows it has one; both of shape (rows,).

    A rate's values are 0 or 1. A rejected prompt is nobody's failure, but one that *we* failed on
    is a system error.
    """
    accepted = ~rows.has(RowFlag.REJECTED)
    system_error = rows.has(RowFlag.SYSTEM_ERROR)
    match metric:
        case Metric.PROCESSING_SECONDS:
            return rows.processing_seconds.astype(np.float64), accepted
        case Metric.SCORE:
            return rows.score.astype(np.float64), accepted
        case Metric.SYSTEM_ERROR:
            return system_error.astype(np.float64), accepted | system_error
        case Metric.ERROR:
            bad = system_error | rows.has(RowFlag.FALLBACK)
            return bad.astype(np.float64), accepted | system_error
        case Metric.SEMANTIC_ERROR:
            bad = rows.has(RowFlag.FALLBACK)
            return bad.astype(np.float64), rows.has(RowFlag.SEMANTIC) | bad
        case Metric.CACHE_HIT:
            return rows.has(RowFlag.CACHE_HIT).astype(np.float64), rows.has(RowFlag.CACHE_LOOKUP)
        case Metric.COHERENCE:
            return rows.coherence.astype(np.float64), rows.has(RowFlag.SEMANTIC)
        case Metric.RELEVANCE:
            return rows.relevance.astype(np.float64), rows.has(RowFlag.SEMANTIC)
        case _:
            # Not measured with the prompt: see `streams.feedback` and `streams.health`.
            return np.zeros(len(rows)), np.zeros(len(rows), np.bool_)


def gate_samples(gate: Gate, rows: Rows) -> tuple[Floats, Mask]:
    """What a gate is tested on, and for which rows; both of shape (rows,).

    A quantile gate is tested on exceedances of its limit (0 or 1), a paired one on the difference
    between the score and what the objective makes of the rules score, anything else on the metric.
    """
    values, valid = metric_samples(gate.metric, rows)
    objective = gate.parsed
    if gate.statistic.quantile is not None:
        return (values > objective.limit).astype(np.float64), valid
    if gate.against is Against.RULES:
        return values - (1.0 + objective.limit) * rows.rules_score.astype(np.float64), valid
    return values, valid
