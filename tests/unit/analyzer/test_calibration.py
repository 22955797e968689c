"""Calibration: monotone, stated with its data, and fitted as it says."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from analyzer.calibration import BUILT_IN, CalibrationError, Logistic, load_calibration
from analyzer.calibration_fit import DATA, fit_calibration, fit_logistic
from analyzer.domains import load_domains
from analyzer.encoder import HashingEncoder
from analyzer.model import PINNED_SHA256

CURVES = ("relevance_domain", "relevance_context", "coherence_single", "coherence_parts")


@pytest.mark.parametrize("name", CURVES)
def test_each_shipped_curve_is_monotone_and_names_its_data_size_and_error(name: str) -> None:
    """And its error on held-apart folds is that of a score worth having."""
    curve: Logistic = getattr(load_calibration(), name)
    assert all(weight >= 0 for weight in curve.weights)
    assert any(weight > 0 for weight in curve.weights)
    assert DATA.name in curve.data
    assert min(curve.positives, curve.negatives) >= 20
    assert curve.auc >= 0.9
    assert curve.brier <= 0.15
    rising = np.linspace(-1, 1, 50)
    scores = curve.apply(*[rising] * len(curve.weights))
    assert (np.diff(scores) > 0).all()
    assert 0 < scores.min() < scores.max() < 1


def test_relevance_means_what_the_gates_assume() -> None:
    """On-topic prompts above 0.6 and off-topic ones below 0.4, on held-apart folds."""
    curve = load_calibration().relevance_domain
    assert curve.auc >= 0.95
    assert curve.mean_positive >= 0.6
    assert curve.mean_negative < 0.4
    assert load_calibration().coherence_single.mean_positive >= 0.7


def test_the_shipped_parameters_belong_to_the_pinned_model() -> None:
    """Vectors of other weights would make them meaningless."""
    assert load_calibration().model_sha256 == PINNED_SHA256


def test_the_shipped_parameters_were_fitted_to_the_shipped_texts() -> None:
    """The number of rows in the data is the one that the parameters name."""
    rows = DATA.read_text(encoding="utf-8").splitlines()
    assert f"{len(rows)} rows" in load_calibration().relevance_domain.data


def test_a_logistic_fit_finds_the_parameters_that_made_the_data() -> None:
    """Slope and offset come back within sampling error; the prior moves the offset by its odds."""
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(20_000, 1))
    labels = generator.random(20_000) < 1 / (1 + np.exp(-3.0 * inputs[:, 0]))
    slope, offset = fit_logistic(inputs, labels, penalty=1e-6)
    assert slope == pytest.approx(3.0, abs=0.15)
    assert offset == pytest.approx(0.0, abs=0.15)
    _, moved = fit_logistic(inputs, labels, penalty=1e-6, prior=0.75)
    assert moved - offset == pytest.approx(np.log(3))


def test_a_fit_is_the_same_every_time_and_orders_our_texts() -> None:
    """An encoder that only knows words finds some of the order; mixed words it cannot see."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    found = fit_calibration(HashingEncoder(), load_domains(), rows)
    assert found == fit_calibration(HashingEncoder(), load_domains(), rows)
    assert found.relevance_context.auc > 0.65
    assert found.relevance_domain.auc > 0.65


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("probe"), "probe"),
        (lambda raw: raw["relevance_domain"].update(weights=[-1.0]), "relevance_domain.weights"),
        (lambda raw: raw["coherence_parts"].update(weights=[1.0]), "coherence_parts.weights"),
        (lambda raw: raw["relevance_domain"].update(slope=1.0), "slope"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, change: object, message: str) -> None:
    """The message names the file and the key."""
    raw = json.loads(BUILT_IN.read_bytes())
    change(raw)  # type: ignore[operator]
    path = tmp_path / "calibration.json"
    path.write_bytes(msgspec.json.encode(raw))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)
