"""From prompts to a drift reference: embeds, scores and calibrates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import track

from analyzer.blend import blend
from analyzer.centroids import centroids_of, distances_apart
from analyzer.drift_map import model_identity
from analyzer.encoder import Encoder
from analyzer.features import SemanticFeatures
from analyzer.fourier import FEATURES, FourierMap
from analyzer.rules import rule_scores
from driftgate.console_io import err
from schemas.drift import DriftFeature, DriftReference, FourierReference
from schemas.drift_reference import ReferenceFile, with_id
from schemas.prompts import PromptSubmitted
from streams.drift.calibration import calibrate_feature, calibrate_fourier

__all__ = ["Measured", "make_reference", "measure"]

Floats = npt.NDArray[np.float64]

_BATCH = 256
_PAIRS = 4_000
"""Of vectors, that the bandwidth is the median distance of: its error is then 2 %."""


class Measured(NamedTuple):
    """Prompts as an analyzer would measure them; arrays of shape (rows,), vectors (rows, dim)."""

    vectors: npt.NDArray[np.float32]
    relevance: Floats
    coherence: Floats
    rules_score: Floats
    score: Floats
    chars: npt.NDArray[np.int64]

    def where(self, rows: npt.NDArray[np.intp]) -> Measured:
        """Some of the rows, in this order."""
        return Measured(
            self.vectors[rows],
            self.relevance[rows],
            self.coherence[rows],
            self.rules_score[rows],
            self.score[rows],
            self.chars[rows],
        )


def measure(
    prompts: Sequence[PromptSubmitted],
    encoder: Encoder,
    scorer: SemanticFeatures,
    semantic_weight: float,
    *,
    progress: bool = True,
) -> Measured:
    """Embed and score prompts, as a worker does.

    Args:
        prompts: at least one.
        encoder: of the vectors.
        scorer: made with it.
        semantic_weight: of the deployment that will be watched.
        progress: whether to show it.
    """
    vectors, rows = [], []
    starts: Iterable[int] = range(0, len(prompts), _BATCH)
    if progress:
        starts = track(starts, "embedding", console=err)
    for start in starts:
        several = prompts[start : start + _BATCH]
        texts = [scorer.texts_to_embed(prompt) for prompt in several]
        found = encoder.encode([text for one in texts for text in one])
        ends = np.cumsum([len(one) for one in texts])[:-1]
        own = np.split(found, ends)
        vectors += [each[0] for each in own]
        scores = scorer.score_prompts(several, [list(each) for each in own], [False] * len(several))
        for prompt, one in zip(several, scores, strict=True):
            rules = rule_scores(prompt.prompt).overall
            score = blend(rules, one.overall, semantic_weight)
            rows.append((one.relevance, one.coherence, rules, score, len(prompt.prompt)))
    relevance, coherence, rules_score, score_, chars = np.array(rows, np.float64).T
    return Measured(
        np.stack(vectors), relevance, coherence, rules_score, score_, chars.astype(np.int64)
    )


def make_reference(
    measured: Measured, encoder: Encoder, *, source: str, seed: int
) -> ReferenceFile:
    """A reference of prompts.

    Args:
        measured: at least 200 prompts.
        encoder: that embedded them.
        source: where they came from.
        seed: of the Fourier map, the clusters and the trials; the same prompts and seed make the
            same reference.

    Raises:
        ValueError: too few prompts, or all of them the same.
    """
    rng = np.random.default_rng(seed)
    vectors = measured.vectors
    one, other = rng.integers(0, len(vectors), (2, _PAIRS))
    distances = np.linalg.norm(vectors[one] - vectors[other], axis=1)
    if not distances.any():
        raise ValueError("its prompts are all the same, and a reference needs different ones")
    bandwidth = float(np.median(distances[distances > 0]))
    mapped = FourierMap(encoder.dimension, seed=seed, bandwidth=bandwidth).features(vectors)
    mean, spread, line = calibrate_fourier(mapped, rng)
    values = {
        DriftFeature.RELEVANCE: measured.relevance,
        DriftFeature.COHERENCE: measured.coherence,
        DriftFeature.SCORE_GAIN: measured.score - measured.rules_score,
        DriftFeature.CENTROID_DISTANCE: distances_apart(vectors, seed),
        DriftFeature.PROMPT_LENGTH: np.log1p(measured.chars),
    }
    reference = DriftReference(
        id="0" * 16,
        model=model_identity(encoder),
        dimension=encoder.dimension,
        rows=len(vectors),
        source=source[:200],
        features=[calibrate_feature(name, column, rng) for name, column in values.items()],
        fourier=FourierReference(
            seed=seed,
            count=FEATURES,
            bandwidth=bandwidth,
            mean=mean.astype("<f4").tobytes(),
            spread=spread,
            threshold=line,
        ),
    )
    centroids = centroids_of(vectors, seed).astype("<f4").tobytes()
    return with_id(ReferenceFile(reference=reference, centroids=centroids))
