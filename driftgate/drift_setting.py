"""Whether a drift reference fits the configured model, before anything is loaded or started."""

from __future__ import annotations

from analyzer.errors import ModelError
from analyzer.model import DIMENSION, locate_model
from analyzer.settings import AnalyzerSettings
from driftgate.errors import SettingsError
from schemas.drift import DriftReference

__all__ = ["check_model_of", "check_reference"]


def check_reference(settings: AnalyzerSettings) -> str:
    """What drift is measured against, in words.

    Raises:
        SettingsError: see :func:`check_model_of`.
    """
    file = settings.drift_reference
    if file is None:
        return "none: the first prompts stand in for it (`driftgate drift calibrate` makes one)"
    reference = file.reference
    check_model_of(reference, settings.model, where="DRIFTGATE_DRIFT_REFERENCE")
    return f"{reference.id}, {reference.rows} prompts of {reference.source or '-'}"


def check_model_of(reference: DriftReference, model: str | None, *, where: str) -> None:
    """Refuse a reference of another model.

    Args:
        reference: that is to be used.
        model: as DRIFTGATE_MODEL names it.
        where: the setting that has the reference.

    Raises:
        SettingsError: it is of another model, or of another dimension. Of a model that is not on
            this machine yet nothing is known: the worker looks again when it loads it.
    """
    cure = "make one with this model (`driftgate drift calibrate`), or take the setting out"
    if reference.dimension != DIMENSION:
        raise SettingsError(
            f"{where}: {reference.id} has {reference.dimension} dimensions, models here have "
            f"{DIMENSION}; {cure}"
        )
    try:
        source = locate_model(model)
    except ModelError:
        # That is said where the model is loaded; without one nothing is measured.
        return
    if source.sha256 and source.sha256 != reference.model.partition(":")[0]:
        raise SettingsError(
            f"{where}: {reference.id} was made with model {reference.model}, the one here "
            f"(DRIFTGATE_MODEL) is {source.sha256}; {cure}"
        )
