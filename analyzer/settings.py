"""Settings of an analyzer process."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from analyzer.cache_redis import TTL_SECONDS
from analyzer.validate import Limits
from schemas.drift_reference import ReferenceFile
from schemas.settings import KafkaSettings

__all__ = ["AnalyzerSettings", "Delivery"]


class Delivery(StrEnum):
    """How results and offsets get into Kafka."""

    EXACTLY_ONCE = "exactly_once"
    """In one transaction."""
    AT_LEAST_ONCE = "at_least_once"
    """Results first, then offsets; a repetition carries the same ids. For brokers without
    transactions."""


class AnalyzerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Built once from the environment and the command line, checked before connecting."""

    kafka: KafkaSettings
    service: str = "default"
    worker_id: str
    """Names the worker in everything that it writes; its transactional id is made of it."""
    static_member: bool = False
    """The id is the same after a restart: the group then gives its partitions back at once."""
    delivery: Delivery = Delivery.EXACTLY_ONCE
    model: str | None = None
    """A folder or a hub name; else an installed package, else the hub."""
    encoder: str = "auto"
    """The engine that computes, see :data:`analyzer.encoder_choice.ENCODERS`."""
    device: str = "cpu"
    """As torch names it; another than the CPU needs sentence-transformers."""
    model_cache_dir: Path | None = None
    """Where exported graphs are kept between starts; the user's cache folder when None."""
    domains_file: Path | None = None
    """More domains, see :func:`analyzer.domains.load_domains`."""
    calibration_file: Path | None = None
    """Fitted by `driftgate calibrate`; the one that ships when None."""
    drift_reference: ReferenceFile | None = None
    """What drift is measured against; else the map and the centroid that ship."""
    semantic_timeout_seconds: float = 5.0
    """A batch whose semantic half takes longer gets the rules result. Above the slowest honest
    batch, far below the 10 s after which the broker aborts the transaction."""
    max_poll_records: int = 256
    """The most prompts a batch."""
    batch_seconds: float = 0.15
    """What the analysis of a batch should take: batches are sized by the pace of those before.
    Longer shares the cost of a transaction among more prompts, shorter makes each wait less."""
    shed_lag_messages: int = 0
    """With more prompts waiting, the semantic half is left out and said to be; 0 never does."""
    heartbeat_seconds: float = 1.0
    cache_bytes: int = 64 * 2**20
    redis_url: str | None = None
    """A cache that workers share, see :mod:`analyzer.cache_redis`; may hold a password."""
    redis_ttl_seconds: int = TTL_SECONDS
    """The life of a vector there."""
    limits: Limits = Limits()
    faults_file: Path | None = None
    """Fault injection for rehearsals; nothing is injected without it."""

    @property
    def group_id(self) -> str:
        """The consumer group: one a service."""
        return f"{self.kafka.topic_prefix}driftgate-analyzer-{self.service}"

    @property
    def transactional_id(self) -> str:
        """Fences an older process of the same worker."""
        return f"{self.group_id}-{self.worker_id}"
