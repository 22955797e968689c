"""Drift: what is watched, by which detectors, and the frozen reference that it is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from schemas.errors import DecodeError

__all__ = [
    "DriftArm",
    "DriftDetector",
    "DriftDirection",
    "DriftFeature",
    "DriftReading",
    "DriftReference",
    "DriftRules",
    "FeatureReference",
    "FourierReference",
    "FourierSum",
    "ThresholdLine",
    "stacked_sums",
]


class DriftFeature(StrEnum):
    """What is watched of the measured rows."""

    RELEVANCE = "relevance"
    COHERENCE = "coherence"
    SCORE_GAIN = "score_gain"
    """The blended score less the rules score of the same prompt."""
    CENTROID_DISTANCE = "centroid_distance"
    """Cosine distance to the nearest centroid of the reference."""
    PROMPT_LENGTH = "prompt_length"
    """ln(1 + characters)."""
    LATENCY = "latency"
    """ln(mean processing seconds) of the rows of a batch with a semantic half."""
    ERROR = "error"
    """A system error."""
    FALLBACK = "fallback"
    """A semantic error."""
    EMBEDDINGS = "embeddings"
    """Their distribution, by random Fourier features."""


class DriftDetector(StrEnum):
    """How a feature is watched."""

    PAGE_HINKLEY = "page_hinkley"
    ADWIN = "adwin"
    HDDM_W = "hddm_w"
    RFF_MMD = "rff_mmd"


class DriftDirection(StrEnum):
    """Where to a feature has moved."""

    UP = "up"
    DOWN = "down"
    AWAY = "away"
    """From the reference; there is no direction in a distribution."""


class DriftArm(StrEnum):
    """Whose rows are watched."""

    ALL = "all"
    CONTROL = "control"
    CANDIDATE = "candidate"


class ThresholdLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A threshold that lets one false alarm pass in so many events: a + b ln(events)."""

    intercept: float
    slope: Annotated[float, Meta(ge=0.0)]

    def at(self, events: float) -> float:
        """The threshold for one false alarm in so many events."""
        return self.intercept + self.slope * math.log(events)


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature of the reference prompts."""

    feature: DriftFeature
    mean: float
    sd: Annotated[float, Meta(gt=0.0)]
    quantiles: Annotated[list[float], Meta(description="At 5, 25, 50, 75 and 95 %.")] = []
    tolerance: Annotated[
        float, Meta(gt=0.0, description="A lasting shift of less, in standard deviations, is none.")
    ]
    page_hinkley: ThresholdLine


class FourierReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The map from an embedding to random Fourier features, and the reference's mean of them.

    Features of x are ``sqrt(2 / count) * cos(w_j . x / bandwidth)`` for half of them, then the same
    with sin; the w follow from the seed (Rahimi and Recht, Random Features for Large-Scale Kernel
    Machines, 2007; in pairs by Sutherland and Schneider, On the Error of Random Fourier Features,
    2015).
    """

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    count: Annotated[int, Meta(ge=16, le=1024, multiple_of=2)]
    bandwidth: Annotated[float, Meta(gt=0.0)]
    mean: Annotated[bytes, Meta(description="float32, little-endian, one a feature.")]
    spread: Annotated[
        float,
        Meta(gt=0.0, description="sqrt(2 tr S^2), S being the features' covariance over prompts."),
    ]
    threshold: ThresholdLine

    def means(self) -> npt.NDArray[np.float32]:
        """The reference's mean of each feature, shape (count,)."""
        return np.frombuffer(self.mean, dtype="<f4")


class DriftReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What prompts were like when nothing was wrong; made by `driftgate drift calibrate`."""

    id: Annotated[
        str, Meta(pattern="^[0-9a-f]{16}$", description="Of its model, map, centroid and means.")
    ]
    model: Annotated[str, Meta(description="Fingerprint of the model that embedded it.")]
    dimension: Annotated[int, Meta(ge=1)]
    rows: Annotated[int, Meta(ge=1)]
    source: Annotated[str, Meta(max_length=200)] = ""
    features: list[FeatureReference]
    fourier: FourierReference

    def feature(self, feature: DriftFeature) -> FeatureReference | None:
        """What is known of a feature, if anything is."""
        return next((each for each in self.features if each.feature is feature), None)


class DriftRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How drift is watched for: it alarms, and never rolls back."""

    enabled: bool = True
    features: Annotated[
        list[DriftFeature], Meta(description="What is watched.")
    ] = msgspec.field(default_factory=lambda: list(DriftFeature))  # fmt: skip
    arm: DriftArm = DriftArm.ALL
    average_run_length: Annotated[
        float,
        Meta(
            ge=1_000.0,
            le=1e9,
            description="Prompts between two false alarms, all detectors together.",
        ),
    ] = 200_000.0
    learn_rows: Annotated[
        int,
        Meta(
            ge=200,
            le=100_000,
            description="First rows that stand in for a reference of a feature without one.",
        ),
    ] = 2_000
    clear_rows: Annotated[
        int, Meta(ge=100, le=100_000, description="So many quiet rows in a row end an episode.")
    ] = 1_000
    reference: DriftReference | None = None


class DriftReading(msgspec.Struct, frozen=True, kw_only=True):
    """How a detector stands."""

    feature: DriftFeature
    detector: DriftDetector
    statistic: Annotated[
        float | None, Meta(description="None: not enough rows yet; alarms above its threshold.")
    ]
    threshold: float
    drifting: Annotated[bool, Meta(description="Whether the feature is in an episode of drift.")]
    learned: Annotated[
        bool, Meta(description="Held against the first rows of the service: no reference has it.")
    ] = False
    foreign_rows: Annotated[
        int,
        Meta(ge=0, description="Rows left out: their analyzer measures with another reference."),
    ] = 0


class FourierSum(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of the random Fourier features of an arm's embeddings in a batch."""

    reference: Annotated[str, Meta(description="Id of the reference that has the map.")]
    rows: Annotated[int, Meta(ge=1)]
    sums: Annotated[bytes, Meta(description="float32, little-endian, one a feature.")]


def stacked_sums(several: Sequence[FourierSum]) -> npt.NDArray[np.float32]:
    """The sums of several batches, shape (batches, features).

    Args:
        several: at least one, all with the same map.

    Raises:
        DecodeError: no whole number of floats, as many in each, or one that no such sum can be.
    """
    size = len(several[0].sums)
    if not size or size % 4 or any(len(one.sums) != size for one in several):
        sizes = sorted({len(one.sums) for one in several})
        raise DecodeError(f"Fourier sums: {sizes} bytes are no float32 numbers, as many in each")
    values = np.frombuffer(b"".join([one.sums for one in several]), dtype="<f4").reshape(
        len(several), -1
    )
    # Each feature of a row is at most sqrt(2 / features); the sums are float32.
    unit = (2.0 / values.shape[1]) ** 0.5 * 1.001
    limits = np.array([one.rows for one in several]) * unit
    # A comparison with NaN is false.
    beyond = ~(np.abs(values).max(axis=1) <= limits)
    if beyond.any():
        worst = int(beyond.argmax())
        raise DecodeError(
            f"Fourier sums: a value beyond {limits[worst]:g} for {several[worst].rows} rows"
        )
    return values
