"""The state of one service: all that the fold remembers, and its exact serialisation."""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.alerting import AlertRule
from schemas.control import AlertSeverity
from schemas.log import MeasurementBatch
from schemas.policy import Policy, default_policy
from schemas.rollout import Deployment, Phase, RolloutState
from streams.drift.detector import Detector
from streams.drift.watch import DriftWatch
from streams.errors import RecoveryError
from streams.panes import Pane
from streams.split import SplitWatch
from streams.watch import Watch

__all__ = [
    "Confirmation",
    "OpenAlert",
    "PendingBatch",
    "ServiceState",
    "Worker",
    "new_state",
    "restore",
    "snapshot",
]

FORMAT = 6
"""Raised when an older snapshot cannot be read any more: it is then rebuilt from the log."""


class Worker(msgspec.Struct, kw_only=True):
    """What is known of an analyzer."""

    incarnation: str
    seen_ms: int
    """Log time of its last record."""
    interval_ms: int
    applied_revision: int
    lag_messages: int = 0
    model_away_since_ms: int | None = None
    """Since when it has had no model; None while it has one, or is loading it."""
    behind_since_ms: int | None = None
    """Since when it was seen to be alive without having applied the present revision."""
    fenced: bool = False
    """Behind for too long: its measurements do not count."""
    lost: bool = False
    """It fell silent without saying goodbye, and was reported."""

    def is_live(self, now_ms: int) -> bool:
        """Whether it was heard of within three of its heartbeats and a second."""
        return now_ms - self.seen_ms <= 3 * self.interval_ms + 1000


class PendingBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement batch that is not counted yet."""

    offset: int
    """Of the log."""
    batch: MeasurementBatch


class OpenAlert(msgspec.Struct, kw_only=True):
    """An alert that is not over."""

    rule: AlertRule
    severity: AlertSeverity
    summary: str
    cure: str
    since_ms: int
    asked_ms: int
    """Log time at which somebody was last asked to look after it."""
    escalation: int = 0
    acknowledged_by: str | None = None


class Confirmation(msgspec.Struct, kw_only=True):
    """A rollback that is not applied by all workers yet."""

    revision: int
    since_ms: int


class ServiceState(msgspec.Struct, kw_only=True):
    """Everything that decides what happens next; changed in place by the fold."""

    service: str
    policy: Policy
    rollout: RolloutState
    last_offset: int = -1
    """Of the log; records up to it are in this state."""
    now_ms: int = 0
    """Log time: the running maximum of the records' time stamps."""
    windows_from_ms: int = 0
    """Where the windows of the policy in force begin."""
    closed_ms: int = 0
    """Up to where windows were reported final."""
    panes: list[Pane] = []
    """The running window, oldest first."""
    recent: npt.NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros((2, 0, 3)))
    """Moments of all panes but the last that have its revision; shape (arms, gates, 3)."""
    source_offsets: dict[str, int] = {}
    """The next source offset to count, by ``topic/partition``."""
    measured: int = 0
    """Rows counted, rejected prompts included."""
    feedback: int = 0
    """Rows of feedback counted."""
    repeated: int = 0
    """Rows dropped because they were counted before."""
    undecodable: int = 0
    """Records of the log that could not be read or were refused."""
    fenced_rows: int = 0
    """Rows dropped because their worker was fenced."""
    workers: dict[str, Worker] = {}
    stage_since_ms: int = 0
    pending: list[PendingBatch] = []
    """Batches that came so soon after the last look that they wait for the next one."""
    pending_rows: int = 0
    """Of all of them."""
    looked_ms: int = 0
    """Log time of the last look at the evidence."""
    checked_ms: int = 0
    """Log time at which workers and alerts were last looked at."""
    rows_ms: int = 0
    """Log time at which a prompt was last measured."""
    lagging_since_ms: int | None = None
    """Since when too many prompts wait."""
    alerts: dict[str, OpenAlert] = {}
    """Those that are open, by key."""
    baselines: dict[str, float] = {}
    """The control arm's last mean in this rollout, by metric: what the watch after a promotion is
    held against."""
    previous_blue: Deployment | None = None
    """What an abort after a promotion goes back to."""
    taken_back: str | None = None
    """The deployment that was rolled back last: what a retry starts again."""
    watch: Watch | None = None
    """The evidence on the present stage, or on what was promoted lately; else None."""
    split: SplitWatch | None = None
    """The evidence on the split of the present stage; None where nobody is split."""
    rehearsal: bool = False
    """Whether the rollout is there only to be taken back."""
    drift: DriftWatch | None = None
    """Whether prompts are as they were; made with the first batch."""
    resumptions: int = 0
    """How often evidence began anew within the rollout: each time spends its own alpha."""
    failed_gates: list[str] = []
    """Gates whose breach was reported and has not ended."""
    confirmation: Confirmation | None = None
    command_ids: list[str] = []
    """The last commands, oldest first: repeating one changes nothing."""

    def live_workers(self) -> list[str]:
        """Workers that are alive in log time, sorted."""
        return sorted(name for name, w in self.workers.items() if w.is_live(self.now_ms))


def new_state(service: str) -> ServiceState:
    """The state of a service that nothing is known of."""
    policy = default_policy()
    blue = policy.deployment(policy.blue)
    assert blue is not None  # parse_policy refuses a policy without it
    rollout = RolloutState(service=service, revision=0, phase=Phase.IDLE, blue=blue)
    return ServiceState(service=service, policy=policy, rollout=rollout)


def _enc(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Detector):
        return value.numbers()
    raise NotImplementedError(f"{type(value)} in a snapshot")


def _dec(kind: type, value: Any) -> Any:
    # An array type with its element type is no class.
    if inspect.isclass(kind) and issubclass(kind, Detector):
        return kind.of(value)
    dtype, shape, data = value
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc)


def snapshot(state: ServiceState) -> bytes:
    """The state as bytes; :func:`restore` gives it back exactly."""
    body = msgspec.msgpack.encode((FORMAT, msgspec.Raw(_encoder.encode(state))))
    # Histograms are mostly zeros: a level-1 deflate makes a tenth of them in a millisecond.
    return zlib.compress(body, 1)


def restore(data: bytes) -> ServiceState:
    """A state from its snapshot.

    Raises:
        RecoveryError: not a snapshot, or one of another format; rebuild the state from the log.
    """
    try:
        version, raw = msgspec.msgpack.decode(zlib.decompress(data), type=tuple[int, msgspec.Raw])
        if version != FORMAT:
            raise RecoveryError(f"a snapshot of format {version}, this code reads {FORMAT}")
        return msgspec.msgpack.decode(raw, type=ServiceState, dec_hook=_dec)
    except (zlib.error, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise RecoveryError(f"not a snapshot: {error}") from error
