"""From prompts to a reference: as a worker measures them, and the same each time."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from analyzer.encoder import HashingEncoder
from analyzer.features import SemanticFeatures
from analyzer.fourier import FourierMap
from analyzer.model import PINNED_SHA256
from analyzer.settings import AnalyzerSettings
from driftgate.drift_setting import check_reference
from driftgate.drifting import Measured, make_reference, measure
from driftgate.errors import Exit, SettingsError
from schemas.drift import DriftDetector, DriftFeature, DriftRules
from schemas.drift_reference import ReferenceFile, reference_contradictions
from schemas.prompts import PromptSubmitted
from schemas.settings import KafkaSettings
from streams.drift.watch import new_drift_watch
from tests.support.references import TEXTS, reference_file


def measured(texts: list[str]) -> Measured:
    """As :func:`reference_file` has them measured."""
    encoder = HashingEncoder()
    prompts = [PromptSubmitted(prompt=text) for text in texts]
    return measure(prompts, encoder, SemanticFeatures(encoder), 0.3, progress=False)


def test_prompts_are_measured_as_by_a_worker() -> None:
    """A row a prompt, in any number of batches: a prompt alone measures the same."""
    found = measured(TEXTS)
    assert found.vectors.shape == (300, 384)
    assert found.chars.tolist() == [len(text) for text in TEXTS]
    for row in (0, 255, 256, 299):
        alone = measured([TEXTS[row]])
        for column, own in zip(found, alone, strict=True):
            np.testing.assert_allclose(column[row], own[0], rtol=1e-5)
    some = found.where(np.array([3, 1]))
    assert some.chars.tolist() == [len(TEXTS[3]), len(TEXTS[1])]


def test_the_same_prompts_and_seed_make_the_same_reference() -> None:
    """To the last bit, id included; another seed is another map."""
    texts = TEXTS[:220]
    one, again, other = (
        make_reference(measured(texts), HashingEncoder(), source="x", seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one.reference.id != other.reference.id


def test_a_reference_says_what_the_prompts_are_like() -> None:
    """Its model, its rows, what each feature is like, and the mean of their Fourier features."""
    reference = reference_file().reference
    assert (reference.model, reference.dimension) == ("hashing:384:v1", 384)
    assert (reference.rows, reference.source) == (300, "texts")
    length = reference.feature(DriftFeature.PROMPT_LENGTH)
    assert length is not None
    assert length.mean == pytest.approx(np.log1p([len(text) for text in TEXTS]).mean())
    known = reference.fourier
    mapped = FourierMap(384, seed=known.seed, count=known.count, bandwidth=known.bandwidth)
    own = mapped.features(HashingEncoder().encode(TEXTS))
    np.testing.assert_allclose(known.means(), own.mean(axis=0), atol=1e-5)


def test_too_few_prompts_are_refused() -> None:
    """A reference of a handful says nothing."""
    with pytest.raises(ValueError, match="40 rows, and a reference needs 200"):
        make_reference(measured(TEXTS[:40]), HashingEncoder(), source="x", seed=1)


def test_prompts_that_are_all_the_same_are_refused() -> None:
    """Nothing could be told from them; two different ones, over and over, are enough."""
    with pytest.raises(ValueError, match="all the same"):
        make_reference(measured(TEXTS[:1] * 200), HashingEncoder(), source="x", seed=1)
    file = make_reference(measured(TEXTS[:2] * 100), HashingEncoder(), source="x", seed=1)
    assert reference_contradictions(file.reference) == []
    assert len(file.centroid_vectors()) == 2


def test_the_watch_is_held_against_the_reference() -> None:
    """What the reference has needs no first rows; what it cannot have learns."""
    rules = DriftRules(reference=reference_file().reference)
    readings = new_drift_watch(rules).readings()
    learned = {r.feature for r in readings if r.learned and r.detector is not DriftDetector.HDDM_W}
    assert learned == {DriftFeature.LATENCY}
    assert {r.detector for r in readings} == set(DriftDetector)


def settings_with(file: ReferenceFile) -> AnalyzerSettings:
    """Of an analyzer with the installed model."""
    return AnalyzerSettings(kafka=KafkaSettings(), worker_id="w", drift_reference=file)


def of_model(model: str, dimension: int = 384) -> ReferenceFile:
    """The reference, said to be of a model."""
    file = reference_file()
    named = msgspec.structs.replace(file.reference, model=model, dimension=dimension)
    return msgspec.structs.replace(file, reference=named)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (of_model("hashing:384:v1"), f"model hashing:384:v1, the one here .* {PINNED_SHA256}"),
        (of_model(PINNED_SHA256, 768), "768 dimensions, models here have 384"),
    ],
    ids=["model", "dimension"],
)  # fmt: skip
def test_a_reference_from_elsewhere_is_refused(file: ReferenceFile, words: str) -> None:
    """From another model or dimension: before anything is loaded, with the cure (M3)."""
    with pytest.raises(SettingsError, match=words) as caught:
        check_reference(settings_with(file))
    assert caught.value.code == Exit.SETTINGS
    assert str(caught.value).startswith("DRIFTGATE_DRIFT_REFERENCE: ")
    assert "driftgate drift calibrate" in str(caught.value)


def test_a_reference_of_this_model_is_named() -> None:
    """For `driftgate doctor`: its id and what it is of; in any precision, and without one too."""
    file = of_model(f"{PINNED_SHA256}:mean:256")
    said = check_reference(settings_with(file))
    assert said == f"{file.reference.id}, 300 prompts of texts"
    none = AnalyzerSettings(kafka=KafkaSettings(), worker_id="w")
    assert "driftgate drift calibrate" in check_reference(none)


def test_of_a_model_that_is_not_here_nothing_is_known() -> None:
    """One that a hub has is compared when it is loaded; one that is nowhere is said then, too."""
    file = of_model("hashing:384:v1")
    for model in ("someone/some-model", "/nowhere"):
        settings = msgspec.structs.replace(settings_with(file), model=model)
        assert file.reference.id in check_reference(settings)
