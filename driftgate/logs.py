"""Log lines of the long-running commands: to stderr, one a line, with the time in UTC."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

from driftgate.errors import SettingsError

__all__ = ["configure_logging"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class _OneError(logging.Filter):
    """Drops what aiokafka logs as an error and then mends by itself.

    Right after a transaction begins, a broker may answer NotEnoughReplicas once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "NotEnoughReplicas" not in record.getMessage()


def configure_logging(environ: Mapping[str, str]) -> None:
    """Set the root logger up.

    Raises:
        SettingsError: an unknown level.
    """
    level = (environ.get("DRIFTGATE_LOG_LEVEL", "").strip() or "INFO").upper()
    if level not in _LEVELS:
        raise SettingsError(f"DRIFTGATE_LOG_LEVEL={level!r} is none of {', '.join(_LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(_OneError())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Their own news is noise beside ours unless somebody debugs.
    for name in ("aiokafka", "faust", "mode", "kafka", "sentence_transformers", "transformers"):
        logging.getLogger(name).setLevel(level if level == "DEBUG" else "WARNING")
