"""The reference encoder: sentence-transformers, in 32-bit floats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analyzer.encoder_batches import MAX_TOKENS, WindowEncoder, padded
from analyzer.errors import ModelError
from analyzer.model import ModelSource, resolve

__all__ = ["SentenceTransformerEncoder"]


class SentenceTransformerEncoder:
    """all-MiniLM-L6-v2 by sentence-transformers, on the CPU or a GPU.

    The model is run as it is; texts are tokenised, batched and windowed as for the other encoders.
    Importing and loading take 5 to 15 s and 600 MB.

    Args:
        source: see :func:`analyzer.model.locate_model`.
        device: as torch names it.
        threads: of the whole process, because torch knows no other.

    Raises:
        ModelError: a device that is not there, or a model that cannot be loaded.
    """

    def __init__(self, source: ModelSource, device: str = "cpu", threads: int = 1) -> None:
        # Here, and not above: a process that serves with another engine never pays for torch.
        import torch  # noqa: PLC0415
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils import logging as progress  # noqa: PLC0415

        local = resolve(source)
        torch.set_num_threads(threads)
        kind = device.partition(":")[0]
        if kind == "cuda" and not torch.cuda.is_available():
            raise ModelError(f"device {device} is not there; configure cpu, or install its driver")
        progress.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._model = SentenceTransformer(
                local.location, device=device, model_kwargs={"use_safetensors": True}
            ).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{local.location} cannot be loaded ({error})") from error
        self._torch = torch
        self._device = device
        self._windows = WindowEncoder(Path(local.location))
        self.name = "sentence-transformers"
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.precision = "f32"
        self.fingerprint = f"{local.sha256}:f32:{MAX_TOKENS}"

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See :class:`analyzer.encoder.Encoder`."""
        return self._windows.encode(texts, padded(self._run, self.dimension), self.dimension)

    def _run(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            features = {
                "input_ids": torch.from_numpy(ids).to(self._device),
                "attention_mask": torch.from_numpy(mask).to(self._device),
            }
            vectors = self._model(features)["sentence_embedding"]
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)
