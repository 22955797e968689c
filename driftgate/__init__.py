"""driftgate: rolls a semantic enhancement out to live traffic and takes it back when it harms."""

import os

from schemas.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION

# One thread a process, and a process a core: OpenBLAS would otherwise wake a thread on every core
# for each product, which spin for longer than they compute. Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
