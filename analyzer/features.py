"""The semantic half: what the vectors say about a prompt (M5, M19, M20).

- relevance: cosine to the prompt's context when it has one, else to its domain's prototypes when
  it names a known one, else to those of the nearest domain; calibrated.
- coherence: a probe on the prompt's vector tells sentences from the same words mixed; a prompt of
  several sentences is also measured by the cosine between its opening and its closing; calibrated.
- clarity, specificity, actionability: the vector's place between sentences with that quality and
  the same requests without it.
- density: half the same against small talk, half the share of distinct words that carry content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from analyzer.calibration import Calibration, load_calibration
from analyzer.domains import Reference, load_domains, normalise_name
from analyzer.encoder import Encoder
from analyzer.errors import AnalyzerError
from schemas.prompts import PromptSubmitted, SemanticScores

__all__ = ["NEAREST", "PART_WORDS", "WEIGHTS", "InvalidVector", "SemanticFeatures", "split_parts"]

Vector = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]

WEIGHTS: dict[str, float] = {
    "relevance": 0.25,
    "coherence": 0.25,
    "clarity": 0.15,
    "specificity": 0.15,
    "actionability": 0.10,
    "density": 0.10,
}
"""Share of each score in ``overall``."""

NEAREST = 3
"""Prototypes that a prompt is measured against: one is noise, all would punish a wide domain."""
PART_WORDS = 24
"""Words of an opening or closing. Telling 354 real prompts of several sentences from ones whose
second half is another's: AUC 0.80 with 12 words, 0.86 with 24, 0.89 with all."""

_CONTRASTS = ("clarity", "specificity", "actionability", "density")
_CONTRAST_LEVEL = 1.3862943611198906  # log(0.8 / 0.2)
_UNIT_TOLERANCE = 1e-2

_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\w+")
_FUNCTION_WORDS = frozenset(
    "a about am an and any are as at be been but by can could did do does for from get give had "
    "has have he her him his how i if in into is it its just let like may me more my need no not "
    "of on one or our please s she should so some t tell than that the their them then there "
    "these they this those to us want was we well were what when where which who why will with "
    "would you your".split()
)
_FULL_DENSITY = 0.6
"""Share of distinct content words in technical English prose."""


class InvalidVector(AnalyzerError):
    """A vector of another shape, not finite, or not of unit norm."""


class SemanticFeatures:
    """Scores of prompts from their vectors.

    Args:
        encoder: embeds the reference sentences, once.
        reference: domains and contrasts; the built-in ones when None.
        calibration: the parameters that ship with the package when None.
        part_words: length of opening and closing; 0 takes coherence from the prompt's own vector
            alone, so that a prompt of several sentences costs no more to embed than its text.
        centroids: what distance is measured to: those of a drift reference, shape (centroids,
            dimension); the mean of all prototypes when None.
    """

    def __init__(
        self,
        encoder: Encoder,
        reference: Reference | None = None,
        calibration: Calibration | None = None,
        *,
        part_words: int = PART_WORDS,
        centroids: Vectors | None = None,
    ) -> None:
        reference = reference or load_domains()
        self._calibration = calibration or load_calibration()
        self._part_words = part_words
        self.dimension = encoder.dimension
        self.domains = tuple(reference.domains)
        self.calibrated = encoder.fingerprint.startswith(self._calibration.model_sha256)
        """Whether the calibration was made with this model: otherwise scores are only an order."""

        sentences = list(reference.domains.values())
        for name in _CONTRASTS:
            sentences += [reference.contrasts[name].high, reference.contrasts[name].low]
        # In one call: the encoder fills its batches, or has the vectors of an earlier start.
        several = np.split(
            encoder.encode([each for some in sentences for each in some]),
            np.cumsum([len(some) for some in sentences])[:-1],
        )
        blocks, pairs = several[: len(reference.domains)], several[len(reference.domains) :]
        prototypes = np.concatenate(blocks)
        sizes = [len(block) for block in blocks]
        middle = _unit(prototypes.mean(axis=0))
        self.centroids = middle[None] if centroids is None else centroids
        # Domains as equal blocks, filled up with vectors opposite to the middle, which are never
        # among the nearest: so that one product and one partition serve all domains.
        padded = np.empty((len(sizes), max(sizes), self.dimension), dtype=np.float32)
        padded[:] = -middle
        for block, own in zip(padded, blocks, strict=True):
            block[: len(own)] = own
        contrasts = [_direction(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
        probe = np.asarray(self._calibration.probe, dtype=np.float32)
        if len(probe) != self.dimension + 1:  # another model: a neutral value for all
            probe = np.zeros(self.dimension + 1, dtype=np.float32)
        self._offsets = np.array([probe[-1], *(offset for _, offset in contrasts)], np.float32)
        self._block_shape = padded.shape[:2]
        self._matrix = np.concatenate(
            [
                padded.reshape(-1, self.dimension),
                self.centroids,
                probe[None, :-1],
                [direction for direction, _ in contrasts],
            ]
        ).T.copy()

    def texts_to_embed(self, prompt: PromptSubmitted) -> list[str]:
        """The texts whose vectors a prompt's scores need.

        The prompt, then its context when it has one, then its opening and closing when it has
        several sentences.
        """
        texts = [prompt.prompt]
        if prompt.context and not prompt.context.isspace():
            texts.append(prompt.context)
        if self._part_words:
            texts += split_parts(prompt.prompt, self._part_words)
        return texts

    def score_prompt(
        self, prompt: PromptSubmitted, vectors: Sequence[Vector], cache_hit: bool
    ) -> SemanticScores:
        """The scores of one prompt; see :meth:`score_prompts`."""
        return self.score_prompts([prompt], [vectors], [cache_hit])[0]

    def score_prompts(
        self,
        prompts: Sequence[PromptSubmitted],
        vectors: Sequence[Sequence[Vector]],
        cache_hits: Sequence[bool],
    ) -> list[SemanticScores]:
        """The scores of several prompts, which cost less together.

        Args:
            prompts: what was submitted.
            vectors: for each prompt those of :meth:`texts_to_embed`, in its order.
            cache_hits: whether a prompt's own vector came from the cache.

        Raises:
            InvalidVector: a vector that no encoder may give.
        """
        if not prompts:
            return []
        own = self._checked([each[0] for each in vectors])
        # Row by row: for one product of all rows OpenBLAS wakes its threads, which then spin for
        # longer than the product takes (2.2 ms of CPU for 64 prompts, against 0.3 ms).
        raw = np.stack([row @ self._matrix for row in own])
        blocks, size = self._block_shape
        cosines = raw[:, : blocks * size].reshape(len(prompts), blocks, size)
        nearest = np.partition(cosines, size - NEAREST, axis=2)[:, :, size - NEAREST :].mean(axis=2)
        index = {name: place for place, name in enumerate(self.domains)}
        chosen = nearest.argmax(axis=1)
        for row, prompt in enumerate(prompts):
            if prompt.domain is not None:
                chosen[row] = index.get(normalise_name(prompt.domain), chosen[row])
        domain_cosine = nearest[np.arange(len(prompts)), chosen]
        places, rest = raw[:, blocks * size :], blocks * size + len(self.centroids)
        distance = 1.0 - places[:, : len(self.centroids)].max(axis=1)
        fitted = raw[:, rest:] + self._offsets
        contrasts = 1.0 / (1.0 + np.exp(-fitted[:, 1:]))
        lexical = np.array([_lexical_density(prompt.prompt) for prompt in prompts])
        table = {
            "relevance": self._relevance(prompts, vectors, own, domain_cosine),
            "coherence": self._coherence(prompts, vectors, fitted[:, 0]),
            "clarity": contrasts[:, 0],
            "specificity": contrasts[:, 1],
            "actionability": contrasts[:, 2],
            "density": 0.5 * contrasts[:, 3] + 0.5 * lexical,
        }
        unit = {name: np.clip(values, 0.0, 1.0) for name, values in table.items()}
        overall = sum(weight * unit[name] for name, weight in WEIGHTS.items())
        columns = np.column_stack([*unit.values(), np.minimum(overall, 1.0)]).tolist()
        cosine_list = np.clip(domain_cosine, -1.0, 1.0).tolist()
        distance_list = np.clip(distance, 0.0, 2.0).tolist()
        return [
            SemanticScores(
                **dict(zip((*unit, "overall"), columns[row], strict=True)),
                domain=self.domains[chosen[row]],
                domain_cosine=cosine_list[row],
                centroid_distance=distance_list[row],
                cache_hit=bool(cache_hits[row]),
            )
            for row in range(len(prompts))
        ]

    def _relevance(
        self,
        prompts: Sequence[PromptSubmitted],
        vectors: Sequence[Sequence[Vector]],
        own: Vectors,
        domain_cosine: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float64]:
        relevance = self._calibration.relevance_domain.apply(domain_cosine)
        rows = [row for row, prompt in enumerate(prompts) if _has_context(prompt)]
        if rows:
            contexts = self._checked([vectors[row][1] for row in rows])
            cosine = np.einsum("ij,ij->i", own[rows], contexts)
            relevance[rows] = self._calibration.relevance_context.apply(cosine)
        return relevance

    def _coherence(
        self,
        prompts: Sequence[PromptSubmitted],
        vectors: Sequence[Sequence[Vector]],
        probe: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float64]:
        coherence = self._calibration.coherence_single.apply(probe)
        rows = [
            row
            for row, prompt in enumerate(prompts)
            if len(vectors[row]) >= 3 + _has_context(prompt)
        ]
        if rows:
            openings = self._checked([vectors[row][-2] for row in rows])
            closings = self._checked([vectors[row][-1] for row in rows])
            cosine = np.einsum("ij,ij->i", openings, closings)
            coherence[rows] = self._calibration.coherence_parts.apply(probe[rows], cosine)
        return coherence

    def _checked(self, vectors: Sequence[Vector]) -> Vectors:
        try:
            matrix = np.asarray(vectors, dtype=np.float32).reshape(len(vectors), self.dimension)
        except ValueError as error:
            raise InvalidVector(f"not {len(vectors)} vectors of {self.dimension}: {error}") from (
                error
            )
        # A comparison with NaN is false, so this also finds what is not finite.
        squares = np.einsum("ij,ij->i", matrix, matrix)
        if not (np.abs(squares - 1.0) <= _UNIT_TOLERANCE).all():
            raise InvalidVector(
                f"vectors with squared norms from {squares.min()} to {squares.max()}"
            )
        return matrix


def split_parts(text: str, max_words: int = PART_WORDS) -> list[str]:
    """The opening and the closing of a text, each at most so many words; none for one sentence.

    The text is cut at the end of the sentence that is nearest to its middle.

    >>> split_parts("My cat is ill. She does not eat. What can I do?", 4)
    ['My cat is ill.', 'What can I do?']
    """
    sentences = [each for each in _SENTENCE.split(text) if each and not each.isspace()]
    if len(sentences) < 2:
        return []
    middle = sum(map(len, sentences)) / 2
    best, before, cut = float("inf"), 0, 1
    for place, sentence in enumerate(sentences[:-1], start=1):
        before += len(sentence)
        if abs(before - middle) < best:
            best, cut = abs(before - middle), place
    opening = " ".join(sentences[:cut]).split()[:max_words]
    closing = " ".join(sentences[cut:]).split()[-max_words:]
    return [" ".join(opening), " ".join(closing)]


def _has_context(prompt: PromptSubmitted) -> bool:
    return bool(prompt.context) and not (prompt.context or "").isspace()


def _direction(high: Vectors, low: Vectors) -> tuple[Vector, float]:
    """A weight vector and offset whose logistic is 0.8 for the high sentences and 0.2 for the low.

    The levels are those of each pair under the direction of the others: under its own, any pair
    would look well separated in 384 dimensions.
    """
    differences = high - low
    directions = np.stack([_unit(differences.sum(axis=0) - own) for own in differences])
    highs = np.einsum("ij,ij->i", high, directions)
    lows = np.einsum("ij,ij->i", low, directions)
    gap = max(float(highs.mean() - lows.mean()), 0.02)
    scale = 2 * _CONTRAST_LEVEL / gap
    offset = -scale * float(highs.mean() + lows.mean()) / 2
    return _unit(differences.sum(axis=0)) * np.float32(scale), offset


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def _lexical_density(text: str) -> float:
    words = _WORD.findall(text.lower())
    if not words:
        return 0.0
    content = set(words) - _FUNCTION_WORDS
    # A long text repeats its words by nature: Heaps' law with an exponent of 0.8.
    return float(min(len(content) / (_FULL_DENSITY * float(len(words)) ** 0.9), 1.0))
