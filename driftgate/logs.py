"""Log lines of the long-running commands: to stderr, one a line, with the time in UTC.

For people as text, for programs as JSON (``DRIFTGATE_LOG_FORMAT=json``): then with the fields that
a line is about, such as ``service``, ``correlationid`` (the rollout) and ``causationid``.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

import msgspec

from driftgate.errors import SettingsError

__all__ = ["configure_logging"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("text", "json")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was given with ``extra``."""


class _OneError(logging.Filter):
    """Drops what aiokafka logs as an error and then mends by itself.

    Right after a transaction begins, a broker may answer NotEnoughReplicas once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "NotEnoughReplicas" not in record.getMessage()


def _text() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    formatter.converter = time.gmtime
    return formatter


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        seconds, rest_ms = divmod(round(record.created * 1000), 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        fields = {
            "time": f"{moment}.{rest_ms:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k not in _STANDARD},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields, enc_hook=str).decode()


def configure_logging(environ: Mapping[str, str]) -> None:
    """Set the root logger up.

    Raises:
        SettingsError: an unknown level or format.
    """
    level = (environ.get("DRIFTGATE_LOG_LEVEL", "").strip() or "INFO").upper()
    if level not in _LEVELS:
        raise SettingsError(f"DRIFTGATE_LOG_LEVEL={level!r} is none of {', '.join(_LEVELS)}")
    kind = (environ.get("DRIFTGATE_LOG_FORMAT", "").strip() or "text").lower()
    if kind not in _FORMATS:
        raise SettingsError(f"DRIFTGATE_LOG_FORMAT={kind!r} is none of {', '.join(_FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _text())
    handler.addFilter(_OneError())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Their own news is noise beside ours unless somebody debugs.
    for name in ("aiokafka", "alembic", "faust", "mlflow", "mode", "kafka",
                 "sentence_transformers", "transformers"):  # fmt: skip
        logging.getLogger(name).setLevel(level if level == "DEBUG" else "WARNING")
