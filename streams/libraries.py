"""What the numbers of a decision are computed with; recorded in each: a replay needs the same."""

from __future__ import annotations

import platform

import numpy as np
import scipy

from streams.drift.river_modules import RIVER_VERSION

__all__ = ["LIBRARIES"]

LIBRARIES = (
    f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
    f"river {RIVER_VERSION}"
)
