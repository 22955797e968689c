"""Puts the model together: weights, encoder, scorer and cache."""

from __future__ import annotations

import logging

from analyzer.cache import EmbeddingCache
from analyzer.cache_redis import SharedEmbeddingCache
from analyzer.cache_redis_url import check_redis_url, connect
from analyzer.calibration import load_calibration
from analyzer.domains import load_domains
from analyzer.drift_map import drift_map, misfit
from analyzer.encoder import Encoder
from analyzer.encoder_choice import choose_encoder
from analyzer.encoder_export import default_cache_dir
from analyzer.encoder_kept import KeptEncoder
from analyzer.features import SemanticFeatures
from analyzer.model import locate_model
from analyzer.semantic import Model
from analyzer.settings import AnalyzerSettings
from schemas.drift_reference import ReferenceFile

__all__ = ["load_model"]

log = logging.getLogger("driftgate.analyzer")


def load_model(settings: AnalyzerSettings) -> Model:
    """The model that the settings name.

    Raises:
        ModelError: it cannot be had or must not be used; the message names the cure.
        RedisSettingError: the shared cache that they name cannot be one.
    """
    encoder = choose_encoder(
        settings.encoder,
        locate_model(settings.model),
        settings.model_cache_dir,
        device=settings.device,
    )
    file = _reference(settings, encoder)
    scorer = SemanticFeatures(
        KeptEncoder(encoder, settings.model_cache_dir or default_cache_dir()),
        load_domains(settings.domains_file),
        load_calibration(settings.calibration_file),
        centroids=file.centroid_vectors() if file is not None else None,
    )
    drift = drift_map(encoder, scorer.centroids, file.reference if file is not None else None)
    return Model(encoder, scorer, _cache(settings, encoder), drift)


def _reference(settings: AnalyzerSettings, encoder: Encoder) -> ReferenceFile | None:
    """The drift reference, if it is of this model: a wrong one costs nobody the semantic half."""
    file = settings.drift_reference
    if file is None:
        return None
    problem = misfit(file.reference, encoder)
    if problem is not None:
        log.error("measuring without a drift reference: %s", problem)
        return None
    return file


def _cache(settings: AnalyzerSettings, encoder: Encoder) -> EmbeddingCache:
    if settings.redis_url is None:
        return EmbeddingCache(settings.cache_bytes, encoder.fingerprint)
    check_redis_url(settings.redis_url)
    return SharedEmbeddingCache(
        settings.cache_bytes,
        encoder.fingerprint,
        encoder.dimension,
        connect(settings.redis_url),
        ttl_seconds=settings.redis_ttl_seconds,
    )
