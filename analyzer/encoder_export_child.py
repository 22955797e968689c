"""Export a model folder: ``python -m analyzer.encoder_export_child MODEL_FOLDER OUT_FOLDER``.

A process of its own, so that torch and transformers are gone from memory once it is done. Writes
the graph, and what the reference computes for a few texts of every kind.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = ["GOLDEN_TEXTS"]

GOLDEN_TEXTS = [
    "",
    "ok",
    "What is the capital of France?",
    "how do i change the oil in my car",
    "Write a Python function that parses an ISO 8601 date and returns seconds since the epoch.",
    "SELECT customer, SUM(amount) FROM orders WHERE day >= '2024-01-01' GROUP BY customer;",
    "def add(a, b):\n    return a + b",
    "Erkläre mir den Unterschied zwischen Größe und Gewicht, bitte möglichst kurz.",
    "请用三句话概括这篇文章。",
    "アラームを明日の朝七時に設定してください。",
    "Напиши короткое письмо коллеге.",
    "اكتب قصيدة قصيرة عن البحر",
    "Plan a party 🎉 for ten people 👩‍👩‍👧 with a budget of €200!",
    "<html><body class='x'>&nbsp;</body></html>",
    "3.14159 2.71828 1.41421 0x1f 1e-9",
    "[MASK] is a special token, and so is [SEP].",
    "ALL CAPITALS AND NO STOPS",
    "   white \t space \n everywhere   ",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "Compare supervised and unsupervised learning, and name two algorithms of each kind.",
    "My deployment fails its health check. The log shows that port 5432 refuses. What is wrong?",
    "Summarise the following text in one sentence. "
    + "The committee met and decided nothing. " * 18,
    "x" * 300,
    "!!! ??? ...",
]
"""Up to the length of a window: what a longer text is, is decided by us and not the reference."""


def _main(folder: str, out: str) -> None:
    import torch  # noqa: PLC0415  # only this process has it
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers import AutoModel  # noqa: PLC0415

    torch.set_num_threads(1)

    class Graph(torch.nn.Module):
        """The model on packed rows: one vector a segment, see analyzer.encoder_packing."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, positions: Any, segments: Any, numbers: Any) -> Any:
            hidden = self.model.embeddings(
                input_ids=input_ids,
                token_type_ids=torch.zeros_like(input_ids),
                position_ids=positions,
            )
            # A token attends to those of its own segment; padding is segment 0 and so is never
            # without any. exp(-10,000) is zero in every precision.
            others = segments.unsqueeze(2) != segments.unsqueeze(1)
            mask = others.unsqueeze(1).to(hidden.dtype) * -10_000.0
            for layer in self.model.encoder.layer:
                result = layer(hidden, attention_mask=mask)
                hidden = result[0] if isinstance(result, tuple) else result
            belongs = (segments.unsqueeze(1) == numbers.view(1, -1, 1)).to(hidden.dtype)
            # The mean's divisor goes with the norm.
            return torch.nn.functional.normalize(torch.matmul(belongs, hidden), dim=2)

    # Eager attention: the fused one is traced with the shapes of the example in it.
    model = AutoModel.from_pretrained(
        folder, attn_implementation="eager", use_safetensors=True, dtype=torch.float32
    ).eval()
    ids = torch.tensor([[101, 2054, 102, 101, 7592, 102], [101, 7592, 2054, 102, 0, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
    with warnings.catch_warnings():
        # The tracer warns of constants that depend on the example's shape; the golden vectors, of
        # many shapes, show that none of them matters.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph(model),
            (ids, positions, segments, torch.tensor([1, 2])),
            str(Path(out) / "model.onnx"),
            input_names=["input_ids", "positions", "segments", "numbers"],
            output_names=["vectors"],
            dynamic_axes={
                "input_ids": {0: "rows", 1: "tokens"},
                "positions": {0: "rows", 1: "tokens"},
                "segments": {0: "rows", 1: "tokens"},
                "numbers": {0: "segments"},
                "vectors": {0: "rows", 1: "segments"},
            },
            opset_version=17,
            dynamo=False,
        )
    reference = SentenceTransformer(folder, device="cpu", model_kwargs={"use_safetensors": True})
    vectors = reference.encode(GOLDEN_TEXTS, normalize_embeddings=True, show_progress_bar=False)
    golden = {"texts": GOLDEN_TEXTS, "vectors": [[float(x) for x in row] for row in vectors]}
    (Path(out) / "golden.json").write_text(json.dumps(golden), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
