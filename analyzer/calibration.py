"""From raw cosines to scores that mean something: a monotone fit on labelled texts.

A calibrated score is the probability that a labeller says yes, under a stated share of yes among
all prompts. ``calibration.json`` holds the parameters with the data, size and error that they come
from; :mod:`analyzer.calibration_fit` makes it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from analyzer.errors import AnalyzerError

__all__ = ["BUILT_IN", "Calibration", "CalibrationError", "Logistic", "load_calibration"]

BUILT_IN = Path(__file__).with_name("calibration.json")

Floats = npt.NDArray[np.floating]


class CalibrationError(AnalyzerError):
    """A calibration file that cannot be used; the message names it and the reason."""


class Logistic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``1 / (1 + exp(-(weights . x + offset)))`` with weights that are not negative.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """

    inputs: list[str]
    """What the raw values are, in the order of the weights."""
    weights: list[float]
    offset: float
    positives: int
    negatives: int
    prior: float
    """Share of positives that the offset stands for."""
    auc: float
    """Of held-apart folds: chance that a positive has the higher score than a negative."""
    brier: float
    """Of held-apart folds, both classes weighing alike: mean square of score - label."""
    mean_positive: float
    mean_negative: float
    data: str

    def apply(self, *inputs: Floats) -> npt.NDArray[np.float64]:
        """The scores, in (0, 1), one a value of the inputs.

        Args:
            inputs: one array a weight, all of the same shape.
        """
        total = np.full(np.shape(inputs[0]), self.offset, dtype=np.float64)
        for weight, values in zip(self.weights, inputs, strict=True):
            total += weight * values
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(total, -30.0, 30.0))))


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All fitted parameters."""

    version: int
    model_sha256: str
    """Of the weights that the vectors came from; for other ones the scores are only an order."""
    relevance_domain: Logistic
    """Of the mean cosine to the three nearest prototypes."""
    relevance_context: Logistic
    """Of the cosine to the prompt's context."""
    coherence_single: Logistic
    """Of the probe's value."""
    coherence_parts: Logistic
    """Of the probe's value, and the cosine between the opening and the closing."""
    probe: list[float]
    """Direction that tells sentences from the same words mixed; the last number is the offset."""


def load_calibration(path: Path | None = None) -> Calibration:
    """The parameters of a file, or the ones that ship with the package.

    Raises:
        CalibrationError: a file that cannot be read, or parameters that are not monotone.
    """
    path = path or BUILT_IN
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise CalibrationError(f"{path}: {error}; fit it again") from error
    for name in ("relevance_domain", "relevance_context", "coherence_single", "coherence_parts"):
        curve: Logistic = getattr(found, name)
        if len(curve.weights) != len(curve.inputs) or not all(w >= 0 for w in curve.weights):
            raise CalibrationError(
                f"{path}: {name}.weights {curve.weights} are not one number >= 0 for each of "
                f"{curve.inputs}; fit it again"
            )
    return found
