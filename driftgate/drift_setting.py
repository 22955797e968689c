"""Whether the configured drift reference fits the configured model, before anything is loaded."""

from __future__ import annotations

from analyzer.errors import ModelError
from analyzer.model import DIMENSION, locate_model
from analyzer.settings import AnalyzerSettings
from driftgate.errors import SettingsError

__all__ = ["check_reference"]


def check_reference(settings: AnalyzerSettings) -> str:
    """What drift is measured against, in words.

    Raises:
        SettingsError: the reference is of another model, or of another dimension. Of a model that
            is not on this machine yet nothing is known: the worker looks again when it loads it.
    """
    file = settings.drift_reference
    if file is None:
        return "none: the first prompts stand in for it (`driftgate drift calibrate` makes one)"
    reference = file.reference
    cure = "make one with this model (`driftgate drift calibrate`), or take the setting out"
    if reference.dimension != DIMENSION:
        raise SettingsError(
            f"DRIFTGATE_DRIFT_REFERENCE: {reference.id} has {reference.dimension} dimensions, "
            f"models here have {DIMENSION}; {cure}"
        )
    try:
        source = locate_model(settings.model)
    except ModelError:
        # That is said where the model is loaded; without one nothing is measured.
        source = None
    if source is not None and source.sha256 and source.sha256 != reference.model.partition(":")[0]:
        raise SettingsError(
            f"DRIFTGATE_DRIFT_REFERENCE: {reference.id} was made with model {reference.model}, "
            f"the one here is {source.sha256}; {cure}"
        )
    return f"{reference.id}, {reference.rows} prompts of {reference.source or '-'}"
