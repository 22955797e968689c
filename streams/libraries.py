"""What the numbers of a decision are computed with; recorded in each: a replay needs the same."""

from __future__ import annotations

import platform

import numpy as np
import scipy

__all__ = ["LIBRARIES"]

LIBRARIES = f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
