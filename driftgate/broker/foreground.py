"""Runs the embedded broker in the foreground, until a signal: what `driftgate broker` does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from driftgate.broker.artefacts import Progress
from driftgate.broker.embedded import EmbeddedKafka

__all__ = ["serve"]

# How late the end of a broker that died by itself may be noticed, in seconds.
_CHECK_S = 0.5


class _StopAsked(BaseException):
    """A signal said to stop; no Exception, so that nothing on the way takes it for a failure."""


def serve(
    *,
    on_ready: Callable[[EmbeddedKafka], None],
    port: int | None = None,
    data_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Runs a broker until SIGINT (Ctrl-C) or SIGTERM, then stops it in order.

    Call it in the main thread.

    Args:
        on_ready: called once, when the broker accepts.
        port: for clients; default: a free one.
        data_dir: keeps topics over restarts; default: a temporary folder.
        environ: where Java and the cache folder are found; default: the process environment.
        progress: told what is fetched and started.

    Raises:
        BrokerError: it did not start, or ended by itself.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _StopAsked

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedKafka(
            port=port, data_dir=data_dir, environ=environ, progress=progress
        ) as kafka:
            on_ready(kafka)
            while True:
                time.sleep(_CHECK_S)
                kafka.check()
    except _StopAsked:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
