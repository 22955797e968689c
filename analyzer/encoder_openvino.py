"""The fast encoder: OpenVINO, in bf16 where the CPU multiplies it itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analyzer.encoder_batches import WindowEncoder
from analyzer.encoder_export import ExportedModel
from analyzer.encoder_packing import packed
from analyzer.errors import EncoderError, ModelError
from analyzer.model import DIMENSION

__all__ = ["OpenVinoEncoder", "has_native_bf16"]


class OpenVinoEncoder:
    """all-MiniLM-L6-v2 by OpenVINO. Not safe between threads.

    Args:
        model: the exported graph.
        precision: ``bf16`` or ``f32``.
        threads: that compute.

    Raises:
        ModelError: bf16 on a CPU that has none, or a graph that cannot be compiled.
    """

    def __init__(self, model: ExportedModel, precision: str = "f32", threads: int = 1) -> None:
        if precision == "bf16" and not has_native_bf16():
            raise ModelError("this CPU has no bf16 of its own; configure f32, or the encoder auto")
        # 0.4 s that only its users pay.
        import openvino  # type: ignore[import-untyped]  # noqa: PLC0415

        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, every worker on a machine would sit on the same first core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = openvino.Core().compile_model(str(model.graph), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot compile {model.graph} ({error})") from error
        self._request = compiled.create_infer_request()
        self._windows = WindowEncoder(model.tokenizer_folder)
        self.name = "openvino"
        self.dimension = DIMENSION
        self.precision = precision
        self.fingerprint = model.fingerprint(precision)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See :class:`analyzer.encoder.Encoder`."""
        return self._windows.encode(texts, packed(self._run, self.dimension), self.dimension)

    def _run(
        self,
        ids: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        segments: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        try:
            self._request.infer(
                [ids, positions, segments, numbers], share_inputs=True, share_outputs=True
            )
        except RuntimeError as error:
            raise EncoderError(f"OpenVINO failed: {error}") from error
        # A view that the next call overwrites; the caller takes what it needs at once.
        return np.asarray(self._request.get_output_tensor(0).data, dtype=np.float32)


def has_native_bf16() -> bool:
    """Whether the CPU has instructions for bf16, as OpenVINO sees it."""
    try:
        # Linux says so too, and spares those without the 0.5 s and 40 MB of the library.
        if "bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
            return False
    except OSError:
        pass
    import openvino  # noqa: PLC0415

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
