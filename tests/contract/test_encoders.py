"""What every encoder promises, and how the fast ones are made and chosen.

The model is the installed package's; the graph is exported once a session.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import analyzer.encoder_choice as choice
from analyzer.cache import normalise
from analyzer.calibration import load_calibration
from analyzer.encoder import Encoder, HashingEncoder, SentenceTransformerEncoder
from analyzer.encoder_choice import MIN_COSINE, choose_encoder, fidelity
from analyzer.encoder_export import ExportedModel, export_model
from analyzer.encoder_onnx import OnnxEncoder
from analyzer.encoder_openvino import OpenVinoEncoder, has_native_bf16
from analyzer.errors import ModelError
from analyzer.features import SemanticFeatures
from analyzer.model import ModelSource, locate_model
from schemas.prompts import PromptSubmitted

# torch and transformers warn of each other's changes when they are imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Vectors = npt.NDArray[np.float32]
PRECISIONS = ["openvino-bf16"] if has_native_bf16() else []
MODELS = [*PRECISIONS, "openvino-f32", "onnx", "sentence-transformers"]
ALL = ["hashing", *MODELS]

TEXTS = [
    "How do I sort a list in Python?",
    "",
    "ok",
    "日本語で短い詩を書いてください。",
    "🎉🎉 party for ten 👩‍👩‍👧",
    "Erkläre mir den Unterschied zwischen Größe und Gewicht.",
    "SELECT * FROM orders WHERE amount > 100;",
    "[CLS] [MASK] [SEP] are only words here",
    "Write a haiku about autumn leaves, and then explain it in one sentence to a child of ten. "
    * 3,
    "How do I sort a list in Python?",
]
LONG = " ".join(f"Item {number} costs {number * 7 % 90} euros." for number in range(700))[:20_000]


@pytest.fixture(scope="session")
def source() -> ModelSource:
    """The weights of the installed package."""
    return locate_model()


@pytest.fixture(scope="session")
def exported(source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """The graph, exported as for a first start."""
    return export_model(source, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def encoders(source: ModelSource, exported: ExportedModel) -> Callable[[str], Encoder]:
    """Encoders by name, each loaded once."""
    made: dict[str, Encoder] = {}
    makers: dict[str, Callable[[], Encoder]] = {
        "hashing": HashingEncoder,
        "openvino-bf16": lambda: OpenVinoEncoder(exported, "bf16"),
        "openvino-f32": lambda: OpenVinoEncoder(exported, "f32"),
        "onnx": lambda: OnnxEncoder(exported),
        "sentence-transformers": lambda: SentenceTransformerEncoder(source),
    }

    def encoder(name: str) -> Encoder:
        if name not in made:
            made[name] = makers[name]()
        return made[name]

    return encoder


@pytest.fixture
def encoder(request: pytest.FixtureRequest, encoders: Callable[[str], Encoder]) -> Encoder:
    """The encoder that a test is parametrised with."""
    found: Encoder = encoders(request.param)
    return found


every = pytest.mark.parametrize("encoder", ALL, indirect=True)
every_model = pytest.mark.parametrize("encoder", MODELS, indirect=True)


def cosines(left: Vectors, right: Vectors) -> Vectors:
    """Row by row, of unit vectors."""
    return np.asarray(np.einsum("ij,ij->i", left, right))


@every
def test_vectors_are_of_unit_norm_and_of_the_dimension(encoder: Encoder) -> None:
    """Also of the empty text and of the longest."""
    vectors = encoder.encode([*TEXTS, LONG])
    assert vectors.shape == (len(TEXTS) + 1, encoder.dimension)
    assert encoder.dimension == 384
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)


@every
def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    """Of the right shape all the same."""
    assert encoder.encode([]).shape == (0, 384)


@every
def test_the_order_is_kept_and_the_batch_does_not_matter(encoder: Encoder) -> None:
    """A text alone, in any order and beside any other has the same vector."""
    together = encoder.encode([*TEXTS, LONG])
    backwards = encoder.encode([LONG, *TEXTS[::-1]])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in [*TEXTS, LONG]])
    assert cosines(together, alone).min() >= 0.9999
    assert cosines(together, backwards).min() >= 0.9999
    assert cosines(together[:1], together[len(TEXTS) - 1 : len(TEXTS)]).min() >= 0.99999


@every
def test_a_result_stays_what_it_is(encoder: Encoder) -> None:
    """The next call does not write into the vectors of the last one."""
    first = encoder.encode(["one text"])
    kept = first.copy()
    encoder.encode(["another text"])
    assert (first == kept).all()


@every
def test_a_text_and_its_cache_key_say_the_same(encoder: Encoder) -> None:
    """Texts that the cache takes for equal have equal vectors."""
    texts = [" Sort\n a  LIST\t", "Größe  und GEWICHT", "ΟΔΟΣ  and İstanbul", *TEXTS]
    normal = encoder.encode([normalise(text) for text in texts])
    assert cosines(encoder.encode(texts), normal).min() >= 0.9999


@every
def test_names_say_what_it_is(encoder: Encoder) -> None:
    """For logs and for the cache; no two precisions share a fingerprint."""
    assert encoder.name
    assert encoder.precision in ("f32", "bf16")
    assert encoder.name == "hashing" or encoder.precision in encoder.fingerprint


@every_model
def test_vectors_are_those_of_sentence_transformers(
    encoder: Encoder, encoders: Callable[[str], Encoder]
) -> None:
    """Cosine >= 0.9999 to its own encode, for every text that fits a window."""
    reference = encoders("sentence-transformers")._model.encode(TEXTS)  # type: ignore[attr-defined]
    assert cosines(encoder.encode(TEXTS), reference).min() >= MIN_COSINE


@every_model
def test_a_long_text_is_not_cut(encoder: Encoder, encoders: Callable[[str], Encoder]) -> None:
    """What comes after the first window counts, and all engines agree on it."""
    start = LONG[:1_500]
    vectors = encoder.encode([start, start + " Now, something about whales and the sea." * 40])
    assert cosines(vectors[:1], vectors[1:]).max() < 0.95
    reference = encoders("sentence-transformers").encode([LONG])
    assert cosines(encoder.encode([LONG]), reference).min() >= MIN_COSINE


@every_model
def test_what_is_slow_to_tokenise_is_encoded(encoder: Encoder) -> None:
    """One endless word, no blanks in another script, and nothing but special tokens."""
    texts = ["x" * 20_000, "水" * 20_000, "[MASK]" * 3_000, "a " * 10_000, "\u0301" * 5_000]
    assert np.linalg.norm(encoder.encode(texts), axis=1) == pytest.approx(1.0, abs=1e-4)


@every_model
def test_scores_do_not_depend_on_the_engine(
    encoder: Encoder, encoders: Callable[[str], Encoder]
) -> None:
    """A change of the encoder is no change of what gates look at: within 0.02."""
    reference = encoders("sentence-transformers")
    prompt = PromptSubmitted(prompt="Cache slow queries in Redis. When do I invalidate them?")
    found = []
    for each in (encoder, reference):
        features = SemanticFeatures(each)
        assert features.calibrated
        vectors = list(each.encode(features.texts_to_embed(prompt)))
        found.append(features.score_prompt(prompt, vectors, False))
    assert found[0].domain == found[1].domain == "backend"
    for name in ("relevance", "coherence", "clarity", "specificity", "overall"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=0.02)


def test_calibrated_scores_separate_what_they_should(encoders: Callable[[str], Encoder]) -> None:
    """For prompts that were in no fit: the levels that the gates of the policy assume."""
    features = SemanticFeatures(encoders("openvino-f32"))
    encoder = encoders("openvino-f32")

    def score(text: str, domain: str | None = None) -> tuple[float, float]:
        prompt = PromptSubmitted(prompt=text, domain=domain)
        vectors = list(encoder.encode(features.texts_to_embed(prompt)))
        scores = features.score_prompt(prompt, vectors, False)
        return scores.relevance, scores.coherence

    on_topic = [
        ("Center a div horizontally and vertically with CSS.", "web-development"),
        ("Why does my LSTM forget long sequences?", "machine-learning"),
        ("Calculate the moving average of daily sales in pandas.", "data-analysis"),
        ("Handle database connection errors in a Flask API.", "backend"),
        ("Suggest a good restaurant for a birthday dinner.", "general"),
    ]
    off_topic = [
        ("How do I prune an apple tree in winter?", "backend"),
        ("Who painted the ceiling of the Sistine Chapel?", "web-development"),
        ("My knee hurts when I go downstairs.", "machine-learning"),
        ("Is my passport valid for a trip to Turkey?", "data-analysis"),
    ]
    choice_of = random.Random(1)
    words = [word for text, _ in on_topic + off_topic for word in text.split()]
    salad = [" ".join(choice_of.choices(words, k=9)) for _ in range(20)]
    assert np.mean([score(text, domain)[0] for text, domain in on_topic]) >= 0.6
    assert np.mean([score(text, domain)[0] for text, domain in off_topic]) < 0.4
    assert np.mean([score(text)[1] for text, _ in on_topic + off_topic]) >= 0.7
    assert np.mean([score(text)[1] for text in salad]) < 0.5
    assert load_calibration().model_sha256 == locate_model().sha256


SERVE = """
import json, sys
from pathlib import Path
from analyzer.encoder_choice import choose_encoder
from analyzer.features import SemanticFeatures
from analyzer.model import locate_model
encoder = choose_encoder(sys.argv[1], locate_model(), Path(sys.argv[2]))
SemanticFeatures(encoder)
heavy = sorted({"torch", "transformers", "sentence_transformers", "sklearn"} & set(sys.modules))
openvino = "openvino" in sys.modules
print(json.dumps({"name": encoder.name, "heavy": heavy, "openvino": openvino}))
"""


@pytest.mark.parametrize("name", ["auto", "openvino", "onnx"])
def test_a_serving_process_imports_neither_torch_nor_transformers(
    exported: ExportedModel, name: str
) -> None:
    """With a warm cache of exports; that is what keeps it small and quick to start."""
    cache_dir = exported.graph.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", SERVE, name, str(cache_dir)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    answer = json.loads(done.stdout)
    assert answer["heavy"] == []
    fastest = "openvino" if has_native_bf16() else "onnx"
    assert answer["name"] == (fastest if name == "auto" else name)
    assert answer["openvino"] == (answer["name"] == "openvino")


def test_the_export_is_found_again(source: ModelSource, exported: ExportedModel) -> None:
    """A second start makes nothing."""
    written = exported.graph.stat().st_mtime_ns
    again = export_model(source, exported.graph.parent.parent)
    assert again.graph == exported.graph
    assert again.graph.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["model.onnx", "golden.json", "manifest.json"])
def test_a_damaged_export_is_made_again(
    source: ModelSource,
    exported: ExportedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """One flipped byte is found by its checksum."""
    folder = tmp_path / exported.graph.parent.name
    shutil.copytree(exported.graph.parent, folder)
    damaged = bytearray((folder / name).read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / name).write_bytes(damaged)
    made: list[Path] = []

    def make(_: ModelSource, target: Path) -> None:
        made.append(target)
        shutil.copytree(exported.graph.parent, target)

    monkeypatch.setattr("analyzer.encoder_export._make", make)
    again = export_model(source, tmp_path)
    assert made == [folder]
    assert again.graph.read_bytes() == exported.graph.read_bytes()


def test_workers_that_start_together_export_once(
    source: ModelSource, exported: ExportedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for the first, and take what it made."""
    made: list[Path] = []

    def make(_: ModelSource, target: Path) -> None:
        made.append(target)
        shutil.copytree(exported.graph.parent, target)

    monkeypatch.setattr("analyzer.encoder_export._make", make)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: export_model(source, tmp_path), range(4)))
    assert len(made) == 1
    assert {each.graph for each in found} == {made[0] / "model.onnx"}


def test_a_cache_folder_that_cannot_be_written_is_refused(
    source: ModelSource, tmp_path: Path
) -> None:
    """With the folder and what to do."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"file/cache.*configure another cache folder"):
        export_model(source, tmp_path / "file" / "cache")


def test_a_model_that_cannot_be_exported_leaves_nothing_behind(tmp_path: Path) -> None:
    """The child's own words are in the message."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"hidden_size": 384}')
    broken = ModelSource(location=str(model), origin="configured", sha256="0" * 64)
    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match=r"failed with status 1: .*choose the encoder"):
        export_model(broken, cache)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_an_unknown_encoder_is_refused(source: ModelSource) -> None:
    """The message lists the ones that there are."""
    with pytest.raises(ModelError, match=r"'tensorrt'.*auto, openvino, onnx, sentence-transf"):
        choose_encoder("tensorrt", source)


def test_a_gpu_that_is_not_there_is_refused(source: ModelSource, tmp_path: Path) -> None:
    """Instead of a slow CPU that nobody asked for; and engines of the CPU say so."""
    with pytest.raises(ModelError, match="onnx runs on the CPU, not on cuda"):
        choose_encoder("onnx", source, tmp_path, device="cuda")
    with pytest.raises(ModelError, match="cuda:7 is not there"):
        choose_encoder("sentence-transformers", source, tmp_path, device="cuda:7")


def test_an_unfaithful_engine_is_passed_over_with_its_reason(
    source: ModelSource,
    exported: ExportedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A CPU on which OpenVINO is wrong gets ONNX Runtime, and the log says why."""

    class Wrong(HashingEncoder):
        def __init__(self, *_: object) -> None:
            super().__init__()

    monkeypatch.setattr(choice, "OpenVinoEncoder", Wrong)
    cache_dir = exported.graph.parent.parent
    with caplog.at_level(logging.INFO, logger="analyzer.encoder_choice"):
        encoder = choose_encoder("auto", source, cache_dir)
    assert encoder.name == "onnx"
    assert fidelity(encoder, exported) >= MIN_COSINE
    assert "not openvino bf16: cosine to the reference" in caplog.text
    with pytest.raises(ModelError, match=r"encoder openvino cannot serve: .* configure auto"):
        choose_encoder("openvino", source, cache_dir)


def test_without_an_export_the_reference_serves(
    source: ModelSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Slowly, with a warning; an engine that was asked for by name is refused instead."""
    (tmp_path / "file").write_text("in the way")
    cache_dir = tmp_path / "file" / "cache"
    with caplog.at_level(logging.WARNING, logger="analyzer.encoder_choice"):
        assert choose_encoder("auto", source, cache_dir).name == "sentence-transformers"
    assert "several times slower" in caplog.text
    with pytest.raises(ModelError, match="cannot be exported"):
        choose_encoder("onnx", source, cache_dir)
