"""The portable encoder: ONNX Runtime, in 32-bit floats.

No dynamic int8: it would make a vector depend on its batch-mates (cosine down to 0.973).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from analyzer.encoder_batches import WindowEncoder
from analyzer.encoder_export import ExportedModel
from analyzer.encoder_packing import packed
from analyzer.errors import EncoderError, ModelError
from analyzer.model import DIMENSION

__all__ = ["OnnxEncoder"]


class OnnxEncoder:
    """all-MiniLM-L6-v2 by ONNX Runtime on the CPU.

    Args:
        model: the exported graph.
        threads: that compute.

    Raises:
        ModelError: a graph that cannot be loaded.
    """

    def __init__(self, model: ExportedModel, threads: int = 1) -> None:
        # 0.2 s that only its users pay.
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait would otherwise burn a core that another process needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(model.graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library's errors have no base but Exception
            raise ModelError(f"ONNX Runtime cannot load {model.graph} ({error})") from error
        self._windows = WindowEncoder(model.tokenizer_folder)
        self.name = "onnx"
        self.dimension = DIMENSION
        self.precision = "f32"
        self.fingerprint = model.fingerprint(self.precision)

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
            (vectors,) = self._session.run(
                None,
                {
                    "input_ids": ids,
                    "positions": positions,
                    "segments": segments,
                    "numbers": numbers,
                },
            )
        except Exception as error:  # the library's errors have no base but Exception
            raise EncoderError(f"ONNX Runtime failed: {error}") from error
        return np.asarray(vectors, dtype=np.float32)
