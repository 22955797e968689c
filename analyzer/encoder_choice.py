"""Which encoder serves: the fastest that is faithful on this CPU, or the one that is configured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from analyzer.encoder import Encoder
from analyzer.encoder_export import ExportedModel, default_cache_dir, export_model
from analyzer.encoder_onnx import OnnxEncoder
from analyzer.encoder_openvino import OpenVinoEncoder
from analyzer.encoder_torch import SentenceTransformerEncoder
from analyzer.errors import AnalyzerError, ModelError
from analyzer.model import ModelSource, resolve

__all__ = ["ENCODERS", "MIN_COSINE", "choose_encoder", "fidelity"]

logger = logging.getLogger(__name__)

ENCODERS = ("auto", "openvino", "onnx", "sentence-transformers")
MIN_COSINE = 0.9999
"""To the reference's vectors, for each golden text. Honest bf16 has 0.99993; a CPU that rounds
otherwise, or a damaged tokenizer, shows far below."""

Candidate = tuple[str, Callable[[], Encoder]]


def choose_encoder(
    name: str,
    source: ModelSource,
    cache_dir: Path | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
) -> Encoder:
    """The encoder of a name, ready to serve.

    Every candidate computes the golden texts before it is taken, which also warms it up.

    Args:
        name: one of :data:`ENCODERS`. ``auto`` tries OpenVINO in bf16, ONNX Runtime, OpenVINO in
            f32, then sentence-transformers; a name takes that engine or nothing.
        source: see :func:`analyzer.model.locate_model`.
        cache_dir: of exported graphs; :func:`analyzer.encoder_export.default_cache_dir` when None.
        device: for sentence-transformers; the others use the CPU.
        threads: that compute; one, with a process a core, is fastest.

    Raises:
        ModelError: an unknown name, or no candidate that can be had and is faithful.
    """
    if name not in ENCODERS:
        raise ModelError(f"unknown encoder {name!r}; configure one of {', '.join(ENCODERS)}")
    if device != "cpu" and name not in ("auto", "sentence-transformers"):
        raise ModelError(
            f"encoder {name} runs on the CPU, not on {device}; configure sentence-transformers"
        )
    local = resolve(source)
    reference = partial(SentenceTransformerEncoder, local, device, threads)
    if name == "sentence-transformers" or device != "cpu":
        encoder = reference()
        logger.info("encoder %s on %s, as configured", encoder.name, device)
        return encoder

    reasons: list[str] = []
    try:
        exported = export_model(local, cache_dir or default_cache_dir())
    except ModelError as error:
        if name != "auto":
            raise
        reasons.append(f"no exported graph: {error}")
    else:
        for label, make in _candidates(name, exported, threads):
            encoder_or_reason = _try(label, make, exported)
            if not isinstance(encoder_or_reason, str):
                why = "the fastest that is faithful here" if name == "auto" else "as configured"
                logger.info("encoder %s: %s%s", label, why, _because(reasons))
                return encoder_or_reason
            reasons.append(encoder_or_reason)
    if name != "auto":
        raise ModelError(f"encoder {name} cannot serve: {'; '.join(reasons)}; configure auto")
    logger.warning("encoder sentence-transformers, several times slower%s", _because(reasons))
    try:
        return reference()
    except ImportError as error:
        raise ModelError(f"no encoder can serve: {'; '.join([*reasons, str(error)])}") from error


def fidelity(encoder: Encoder, exported: ExportedModel) -> float:
    """The least cosine between an encoder's vectors and the reference's, over the golden texts."""
    vectors = encoder.encode(exported.golden_texts)
    return float(np.einsum("ij,ij->i", vectors, exported.golden_vectors).min())


def _candidates(name: str, exported: ExportedModel, threads: int) -> list[Candidate]:
    several: list[Candidate] = [
        ("openvino bf16", partial(OpenVinoEncoder, exported, "bf16", threads)),
        ("openvino f32", partial(OpenVinoEncoder, exported, "f32", threads)),
        ("onnx f32", partial(OnnxEncoder, exported, threads)),
    ]
    bf16, f32, onnx = several
    # bf16 is twice as fast as f32. In f32 ONNX Runtime comes first: 87 % of what the cores of a
    # Zen 3 can multiply, against 79 %, half as long to start, and 100 MB less.
    return {"openvino": [bf16, f32], "onnx": [onnx]}.get(name, [bf16, onnx, f32])


def _try(label: str, make: Callable[[], Encoder], exported: ExportedModel) -> Encoder | str:
    """The encoder, or why not."""
    try:
        encoder = make()
        cosine = fidelity(encoder, exported)
    except (AnalyzerError, ImportError) as error:
        return f"not {label}: {error}"
    if cosine < MIN_COSINE:
        return f"not {label}: cosine to the reference {cosine:.6f} < {MIN_COSINE} on this CPU"
    return encoder


def _because(reasons: list[str]) -> str:
    return f" ({'; '.join(reasons)})" if reasons else ""
