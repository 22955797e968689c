"""The served score lies between rules and semantics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.blend import blend

UNIT = st.floats(0, 1)


def test_the_default_is_30_to_70() -> None:
    """30 % semantic, 70 % rules."""
    assert blend(0.5, 1.0, 0.3) == pytest.approx(0.65)


@given(UNIT, UNIT, UNIT)
def test_the_blend_is_between_both_scores(rules: float, semantic: float, weight: float) -> None:
    """And each end of the weight is one of the two."""
    assert min(rules, semantic) <= blend(rules, semantic, weight) <= max(rules, semantic)
    assert blend(rules, semantic, 0.0) == rules
    assert blend(rules, semantic, 1.0) == pytest.approx(semantic)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_that_is_no_share_is_refused(weight: float) -> None:
    """A score outside of [0, 1] must not come into being."""
    with pytest.raises(ValueError, match="semantic weight"):
        blend(0.5, 0.5, weight)
