"""River's detectors without their package.

``import river.drift`` also imports scikit-learn and pandas, for the data sets that come with it:
160 MB, and some seconds at each start of a monitor. The modules of the detectors need neither.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import river
from river import stats

from streams.errors import StreamsError

__all__ = ["ADWIN", "HDDMW", "RIVER_VERSION", "EWMean", "RiverPageHinkley", "SampleInfo"]

RIVER_VERSION: str = version("river")
"""What a detector's state was taken apart by."""


def _module(name: str) -> Any:
    """A module of `river.drift`, run without that package's own imports."""
    loaded = sys.modules.get(f"river.drift.{name}")
    if loaded is not None:
        return loaded
    path = Path(river.__path__[0], "drift", *name.split(".")).with_suffix(".py")
    spec = spec_from_file_location(f"{__name__}.{name.replace('.', '_')}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise StreamsError(f"river {RIVER_VERSION} has no {path}: install the locked version")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ADWIN: Any = _module("adwin").ADWIN
HDDMW: Any = _module("binary.hddm_w").HDDMW
SampleInfo: Any = _module("binary.hddm_w").SampleInfo
RiverPageHinkley: Any = _module("page_hinkley").PageHinkley
EWMean: Any = stats.EWMean
