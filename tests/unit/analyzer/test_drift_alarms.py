"""Whether a drift alarm was open at a time, by what the control topic says of it."""

from __future__ import annotations

import msgspec

from analyzer.drift_alarms import DriftAlarms
from schemas.control import DriftCleared, DriftDetected, GateBreached
from schemas.drift import DriftFeature
from tests.support.curating import drift
from tests.support.samples import sample

DAY_MS = 86_400_000


def test_an_alarm_is_open_from_its_beginning_to_its_end() -> None:
    """Moments before and after are quiet; another service is not concerned."""
    alarms = DriftAlarms()
    alarms.take(drift(DriftDetected, 1000))
    assert not alarms.open_between("shop", 0, 1000)
    assert alarms.open_between("shop", 0, 1001)
    assert alarms.open_between("shop", 10**12, 10**12 + 1)
    assert not alarms.open_between("blog", 0, 10**12)
    alarms.take(drift(DriftCleared, 2000))
    assert alarms.open_between("shop", 2000, 3000)
    assert not alarms.open_between("shop", 2001, 3000)


def test_features_alarm_for_themselves() -> None:
    """While one is open an alarm is open; a repetition of an event changes nothing."""
    alarms = DriftAlarms()
    first = drift(DriftDetected, 1000)
    other = msgspec.structs.replace(drift(DriftDetected, 1500), feature=DriftFeature.EMBEDDINGS)
    assert first.feature is not other.feature
    for event in (first, first, other, drift(DriftCleared, 2000), sample(GateBreached)):
        alarms.take(event)
    assert alarms.open_between("shop", 5000, 6000)
    alarms.take(msgspec.structs.replace(drift(DriftCleared, 3000), feature=other.feature))
    assert not alarms.open_between("shop", 5000, 6000)
    assert alarms.open_between("shop", 1200, 1300)


def test_old_episodes_are_forgotten() -> None:
    """Eight days after their end; those that are open stay."""
    alarms = DriftAlarms()
    for n in range(100):
        alarms.take(drift(DriftDetected, n * DAY_MS))
        alarms.take(drift(DriftCleared, n * DAY_MS + 1))
    assert len(alarms._episodes["shop"]) == 9
    alarms.take(drift(DriftCleared, 10**12))
    assert alarms._episodes["shop"] == []
