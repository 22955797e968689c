"""The served score: rules and semantics in a stated ratio."""

from __future__ import annotations

__all__ = ["blend"]


def blend(rules: float, semantic: float, weight: float) -> float:
    """The weighted mean of both scores.

    Args:
        rules: the rules score, in [0, 1].
        semantic: the semantic score, in [0, 1].
        weight: share of the semantic score, in [0, 1]; 0.3 by default (M5).

    Returns:
        A score in [0, 1], between the two.

    Raises:
        ValueError: a weight outside of [0, 1].

    >>> round(blend(0.5, 1.0, 0.3), 4)
    0.65
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"semantic weight {weight} is not in [0, 1]")
    value = rules + weight * (semantic - rules)
    # Rounding may lead a hair outside of the two, and so outside of [0, 1].
    return min(max(value, min(rules, semantic)), max(rules, semantic))
