"""`python -m driftgate` is `driftgate`."""

from __future__ import annotations

from driftgate.cli import main

__all__: list[str] = []

main()
