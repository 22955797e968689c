from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.gates.sustained import SustainedTimer

STEPS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60)


@given(steps=STEPS)
def test_it_is_satisfied_exactly_when_a_spell_without_gap_has_lasted(steps):
    """Compared at every step with the definition, on the whole history; state stays exact."""
    timer, history, now = SustainedTimer(required_ms=50, gap_ms=30), [], 0
    for step, breaching in steps:
        now += step
        history.append((now, breaching))
        timer.update(now, breaching=breaching)
        timer = msgspec.msgpack.decode(msgspec.msgpack.encode(timer), type=SustainedTimer)
        spell, last = [], 0
        for at, bad in history:
            if not bad:
                spell = []
            elif spell and at - last > 30:
                spell = [at]
            else:
                spell.append(at)
            last = at
        assert timer.elapsed_ms == (spell[-1] - spell[0] if spell else 0)
        assert timer.satisfied == (bool(spell) and spell[-1] - spell[0] >= 50)


def test_silence_is_no_breach():
    """Two breaches five minutes apart, with nothing between them, are not sustained."""
    timer = SustainedTimer(required_ms=300_000, gap_ms=60_000)
    timer.update(0, breaching=True)
    timer.update(300_000, breaching=True)
    assert not timer.satisfied
    assert timer.elapsed_ms == 0


def test_nothing_required_is_satisfied_by_the_first_breach():
    """A gate without a duration fails at once, but not before anything was seen."""
    timer = SustainedTimer(required_ms=0, gap_ms=1)
    assert not timer.satisfied
    timer.update(5, breaching=True)
    assert timer.satisfied


def test_refuses_what_cannot_be():
    """Time that goes back or is no whole number; durations that are negative."""
    timer = SustainedTimer(required_ms=10, gap_ms=10)
    timer.update(100, breaching=True)
    with pytest.raises(ValueError, match="before"):
        timer.update(99, breaching=True)
    with pytest.raises(ValueError, match="whole"):
        timer.update(100.5, breaching=True)
    with pytest.raises(ValueError, match=r"NaN|whole"):
        timer.update(float("nan"), breaching=True)
    assert (timer.since_ms, timer.last_ms) == (100, 100)
    for required, gap in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="positive"):
            SustainedTimer(required_ms=required, gap_ms=gap)
