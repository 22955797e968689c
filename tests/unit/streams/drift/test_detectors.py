"""What every detector must do, and that each is River's."""

from __future__ import annotations

import doctest
import importlib
import math
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN
from river.drift import PageHinkley as RiverPageHinkley
from river.drift.binary import HDDMW

from streams.drift import river_modules
from streams.drift.adwin import CLOCK, Adwin
from streams.drift.detector import Detector
from streams.drift.hddm_w import WEIGHT, HddmW
from streams.drift.page_hinkley import PageHinkley, siegmund_threshold
from streams.errors import RecoveryError

MAKERS: dict[str, Callable[[], Detector]] = {
    "page_hinkley-up": lambda: PageHinkley(tolerance=0.5, threshold=15.0, mode="up"),
    "page_hinkley-both": lambda: PageHinkley(tolerance=0.5, threshold=15.0, mode="both"),
    "adwin": lambda: Adwin(delta=1e-6),
    "hddm_w": lambda: HddmW(confidence=1e-6, bits=64),
}
LEVELS = {"hddm_w": (0.01, 0.4)}
"""Of a detector's numbers before and after the drift; otherwise means of normal ones."""

each = pytest.mark.parametrize("name", MAKERS)
MODULES = ("adwin", "hddm_w", "page_hinkley", "rff_mmd")


def stream(name: str, seed: int, quiet: int, drifted: int) -> list[float]:
    """Numbers as a detector takes them, with a drift after so many."""
    rng = random.Random(seed)
    before, after = LEVELS.get(name, (0.0, 1.5))
    if name == "hddm_w":
        levels = [before] * quiet + [after] * drifted
        return [sum(rng.random() < level for _ in range(64)) / 64 for level in levels]
    return [rng.gauss(0.0, 1.0) for _ in range(quiet)] + [
        rng.gauss(after, 1.0) for _ in range(drifted)
    ]


def carried(detector: Detector) -> Detector:
    """The same detector after a way through bytes."""
    data = msgspec.msgpack.encode(detector.numbers())
    return type(detector).of(msgspec.msgpack.decode(data))


@each
@pytest.mark.parametrize("seed", range(5))
def test_finds_a_drift_and_nothing_before_it(name: str, seed: int) -> None:
    """2,000 quiet numbers say nothing, and of 60 that have drifted not all are needed."""
    detector = MAKERS[name]()
    found = next(
        (i for i, x in enumerate(stream(name, seed, 2000, 60)) if detector.update(x)), None
    )
    assert found is not None
    assert 2000 <= found < 2060


@each
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=30)
def test_a_restart_anywhere_changes_nothing(name: str, seed: int, cuts: list[int]) -> None:
    """Put away and fetched again at any number, a detector says the same, and stands the same."""
    undisturbed, restarted = MAKERS[name](), MAKERS[name]()
    for place, number in enumerate(stream(name, seed, 300, 100)):
        if place in cuts:
            restarted = carried(restarted)
        said = undisturbed.update(number)
        assert restarted.update(number) == said
        assert restarted.numbers() == undisturbed.numbers()
        if said:
            break


@each
def test_state_stays_small(name: str) -> None:
    """After 100,000 quiet numbers the state is a few kilobytes, and no larger than it has to be."""
    detector = MAKERS[name]()
    rng = random.Random(3)
    for _ in range(100_000):
        detector.update(rng.gauss(0.0, 0.1) if name != "hddm_w" else 0.0)
    assert len(msgspec.msgpack.encode(detector.numbers())) < 3000


@each
def test_state_of_another_river_is_refused(name: str) -> None:
    """Its numbers may mean something else: the state is rebuilt from the log."""
    _, *rest = MAKERS[name]().numbers()
    with pytest.raises(RecoveryError, match=r"detectors of river 0\.1, this code has river"):
        type(MAKERS[name]()).of(["0.1", *rest])


@pytest.mark.parametrize(
    "buckets", [[], [[[0.0] * 7, [0.0] * 7]], [[[0.0, 1.0], [0.0]]]], ids=["none", "full", "odd"]
)
def test_numbers_that_are_no_adwin_are_refused(buckets: list[list[list[float]]]) -> None:
    """River is given nothing that it could not have written itself: it would end the process."""
    version, delta, sums, _ = Adwin(delta=0.01).numbers()
    with pytest.raises(ValueError, match="an ADWIN"):
        Adwin.of([version, delta, sums, buckets])


@pytest.mark.parametrize("seed", range(3))
def test_adwin_is_rivers(seed: int) -> None:
    """The same looks, detections and windows as River's class, which forgets after a change."""
    ours = Adwin(delta=0.002)
    theirs = ADWIN(delta=0.002, clock=CLOCK, min_window_length=1)
    for number in stream("adwin", seed, 500, 200):
        said = ours.update(number)
        theirs.update(number)
        assert said == theirs.drift_detected
        assert (ours.mean, ours.width) == (theirs.estimation, theirs.width)
        if said:
            return
    raise AssertionError("nothing was found")


def test_adwin_goes_on_after_a_change() -> None:
    """It keeps the newer part of its window, so its mean is of what is new."""
    detector = Adwin(delta=1e-4)
    found = [i for i, x in enumerate(stream("adwin", 1, 500, 500)) if detector.update(x)]
    assert found
    assert abs(detector.mean - 1.5) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_hddm_w_is_rivers(seed: int) -> None:
    """To the bit the same as River's class at the root of the confidence, without its copies."""
    root = 1e-6 ** (1 / 64)
    ours = HddmW(confidence=1e-6, bits=64)
    theirs = HDDMW(drift_confidence=root, warning_confidence=root, lambda_val=WEIGHT)
    for number in stream("hddm_w", seed, 300, 60):
        said = ours.update(number)
        theirs.update(number)
        assert said == theirs.drift_detected
        assert ours.base == theirs._s1_incr.ewma
        if said:
            return
    raise AssertionError("nothing was found")


@pytest.mark.parametrize("mode", ["up", "both"])
def test_page_hinkley_is_rivers_with_the_mean_of_the_reference(mode: str) -> None:
    """River's own class, whose mean is held at 0, has the same sums at every number."""
    ours = PageHinkley(tolerance=0.3, threshold=1e9, mode=mode)
    theirs = RiverPageHinkley(min_instances=1, delta=0.3, threshold=1e9, alpha=1.0, mode=mode)
    # A mean of so many numbers does not move.
    theirs._x_mean.n = 1e300
    for number in stream("", 4, 300, 100):
        ours.update(number)
        theirs.update(number)
        assert ours.up == theirs._sum_increase - theirs._min_increase
        if mode == "both":
            assert ours.down == theirs._max_decrease - theirs._sum_decrease


def test_page_hinkley_sees_a_stream_that_was_never_like_the_reference() -> None:
    """River's mean follows the stream, and finds nothing in one that is off from its beginning."""
    rng = random.Random(5)
    numbers = [rng.gauss(1.0, 1.0) for _ in range(300)]
    ours = PageHinkley(tolerance=0.5, threshold=15.0, mode="up")
    theirs = RiverPageHinkley(min_instances=1, delta=0.5, threshold=15.0, alpha=1.0, mode="up")
    assert any(ours.update(x) for x in numbers)
    found = []
    for number in numbers:
        theirs.update(number)
        found.append(theirs.drift_detected)
    assert not any(found)


@pytest.mark.parametrize("tolerance", [0.3, 0.6])
def test_siegmunds_threshold_keeps_the_run_length(tolerance: float) -> None:
    """Simulated: between two false alarms there are as many numbers as were asked for, to 25 %."""
    asked = 2_000
    threshold = siegmund_threshold(asked, tolerance)
    lengths = []
    rng = random.Random(6)
    for _ in range(150):
        detector = PageHinkley(tolerance=tolerance, threshold=threshold, mode="up")
        length = 1
        while not detector.update(rng.gauss(0.0, 1.0)):
            length += 1
        lengths.append(length)
    assert math.isclose(sum(lengths) / len(lengths), asked, rel_tol=0.25)


def test_modules_are_those_of_the_package() -> None:
    """What is loaded past `river.drift` is the code that stands there."""
    assert river_modules.ADWIN.update.__code__ == ADWIN.update.__code__
    assert river_modules.HDDMW.update.__code__ == HDDMW.update.__code__
    assert river_modules.RiverPageHinkley.update.__code__ == RiverPageHinkley.update.__code__


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_exact(name: str) -> None:
    """The seeded doctests of each module, with the exact index of the detection."""
    result = doctest.testmod(importlib.import_module(f"streams.drift.{name}"))
    assert result.attempted
    assert not result.failed
