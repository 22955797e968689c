"""How fast and how faithful the encoder is, beside what others do.

    python -m benchmarks.encoder PROMPTS.jsonl --json
    python -m benchmarks.encoder PROMPTS.jsonl --prompts 200 --repeats 1     # a try

All engines embed the same prompts in the same process with one thread each, in turns, tokenising
included; a rate is prompts per second of CPU time, the median over the repeats, with the least and
the most beside it.

- `ours`: the encoder that `auto` (or `--encoder`) chooses here; all prompts in one call, and in
  polls of 64.
- `sentence_transformers`: `SentenceTransformer.encode` as a user calls it: f32, batch 32, sorted by
  length by the library.
- `fastembed_like`: ONNX Runtime in f32 with batches of 256 in order of arrival, as fastembed does.

`cos_min` is ours to `encode`, for every prompt within one window of 256 tokens (a longer one is cut
by `encode` and windowed by us); `alone_vs_batch_min` is ours to ours. `ceiling_share` is the
arithmetic of the prompts' own tokens, without padding, in our CPU time, against the fastest matrix
product that torch does on one thread in the same precision; `ratio_at_ceiling` is what the ratio to
`encode` would be if nothing but these products took time: no engine can be faster in this
precision on this CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.encoder import Encoder
from analyzer.encoder_batches import MAX_TOKENS
from analyzer.encoder_choice import ENCODERS, choose_encoder
from analyzer.encoder_export import ExportedModel, export_model
from analyzer.model import ModelSource, locate_model, resolve

__all__ = ["main"]

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

_POLL = 64
_FASTEMBED_BATCH = 256
_ALONE = 200
_FLOPS_PER_TOKEN, _FLOPS_PER_TOKEN_PAIR = 21.23e6, 9216.0
"""Of the model: 6 layers of 384 dimensions, and of attention."""


def run(
    texts: list[str], encoder: str, repeats: int, cache_dir: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """All measurements of a list of prompts."""
    import torch  # noqa: PLC0415  # after the arguments are checked: it takes seconds

    torch.set_num_threads(1)
    source = resolve(locate_model())
    say("loading the engines")
    ours = choose_encoder(encoder, source, cache_dir)
    exported = export_model(source, cache_dir)
    reference = _sentence_transformers(source)
    engines: dict[str, Embed] = {
        "ours": ours.encode,
        "ours_polls_of_64": lambda batch: _polls(ours, batch),
        "sentence_transformers": reference,
        "fastembed_like": _fastembed_like(source, exported),
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    found: dict[str, Vectors] = {}
    for name, embed in engines.items():
        say(f"warming up {name}")
        embed(texts[: 2 * _POLL])
    embed = engines["ours"]
    embed(texts)
    for repeat in range(repeats):
        for name, embed in engines.items():
            begun = time.process_time()
            found[name] = embed(texts)
            rates[name].append(len(texts) / (time.process_time() - begun))
            say(f"repeat {repeat + 1} of {repeats}: {name} {rates[name][-1]:.0f} prompts/CPU-s")
    lengths = _lengths(source, texts)
    within = lengths <= MAX_TOKENS
    theirs = found["sentence_transformers"][within]
    alone = np.concatenate([ours.encode([text]) for text in texts[:_ALONE]])
    say("measuring the ceiling")
    ceiling = _matrix_flops_per_s(torch, ours.precision)
    flops = float(np.mean(_FLOPS_PER_TOKEN * lengths + _FLOPS_PER_TOKEN_PAIR * lengths**2))
    medians = {name: median(values) for name, values in rates.items()}
    return {
        "encoder": f"{ours.name} {ours.precision}",
        "prompts": len(texts),
        "tokens_mean": round(float(lengths.mean()), 1),
        "over_a_window": int((~within).sum()),
        "repeats": repeats,
        "prompts_per_cpu_s": {
            name: {
                "median": round(medians[name], 1),
                "min": round(min(values), 1),
                "max": round(max(values), 1),
            }
            for name, values in rates.items()
        },
        "ratio_vs_sentence_transformers": round(
            medians["ours"] / medians["sentence_transformers"], 3
        ),
        "ratio_vs_fastembed_like": round(medians["ours"] / medians["fastembed_like"], 3),
        "cos_min": round(_cos_min(found["ours"][within], theirs), 6),
        "cos_min_fastembed_like": round(
            _cos_min(found["fastembed_like"][within], theirs), 6
        ),
        "alone_vs_batch_min": round(_cos_min(alone, found["ours"][:_ALONE]), 6),
        "ceiling_share": round(flops * medians["ours"] / ceiling, 3),
        "ratio_at_ceiling": round(ceiling / flops / medians["sentence_transformers"], 3),
        "ceiling_gflops": round(ceiling / 1e9, 1),
        "machine": {"cpu": _cpu(), "python": platform.python_version(), "threads": 1},
    }  # fmt: skip


def _polls(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """As a worker does: a poll at a time."""
    starts = range(0, len(texts), _POLL)
    return np.concatenate([encoder.encode(texts[start : start + _POLL]) for start in starts])


def _sentence_transformers(source: ModelSource) -> Embed:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    model = SentenceTransformer(source.location, device="cpu")

    def embed(texts: Sequence[str]) -> Vectors:
        return np.asarray(model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    return embed


def _fastembed_like(source: ModelSource, exported: ExportedModel) -> Embed:
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(exported.graph), options)
    tokenizer = Tokenizer.from_file(str(Path(source.location) / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> Vectors:
        found = []
        for start in range(0, len(texts), _FASTEMBED_BATCH):
            encodings = tokenizer.encode_batch(list(texts[start : start + _FASTEMBED_BATCH]))
            ids = np.array([each.ids for each in encodings], dtype=np.int64)
            mask = np.array([each.attention_mask for each in encodings], dtype=np.int64)
            inputs = {
                "input_ids": ids,
                "positions": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
                "segments": mask,
                "numbers": np.array([1]),
            }
            found.append(session.run(None, inputs)[0][:, 0])
        return np.concatenate(found)

    return embed


def _lengths(source: ModelSource, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Tokens of each text, with both special ones."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(Path(source.location) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.array([len(each.ids) for each in tokenizer.encode_batch(list(texts))])


def _cos_min(left: Vectors, right: Vectors) -> float:
    return float(np.einsum("ij,ij->i", left, right).min())


def _matrix_flops_per_s(torch: Any, precision: str, size: int = 1536, repeats: int = 12) -> float:
    """The best of a few square products on one thread, in floating point operations a second."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        begun = time.process_time()
        torch.mm(left, right)
        best = min(best, time.process_time() - begun)
    return float(2 * size**3 / best)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")


def _read(path: Path, limit: int) -> list[str]:
    """The prompts of a file: the field `text` or `prompt` of each line."""
    texts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts.append(str(row["text"] if "text" in row else row["prompt"]))
    # Spread over the file, which may be in order of topic.
    step = max(1, len(texts) // limit)
    return texts[::step][:limit]


def main(arguments: list[str] | None = None) -> int:
    """Run and print; exit code 1 when vectors are not faithful."""
    parser = argparse.ArgumentParser(description="Speed and fidelity of the encoder.")
    parser.add_argument("file", type=Path, help="JSONL with a field text or prompt")
    parser.add_argument("--prompts", type=int, default=2000, help="at most (default 2000)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", choices=ENCODERS, default="auto")
    parser.add_argument("--cache-dir", type=Path, help="of exported models (default: a new one)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(arguments)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {text}", file=sys.stderr, flush=True)

    texts = _read(options.file, options.prompts)
    with tempfile.TemporaryDirectory() as scratch:
        cache_dir = options.cache_dir or Path(scratch)
        report = run(texts, options.encoder, options.repeats, cache_dir, say)
    report["seconds"] = round(time.monotonic() - begun, 1)
    print(json.dumps(report) if options.json else json.dumps(report, indent=2))
    return int(min(report["cos_min"], report["alone_vs_batch_min"]) < 0.9999)


if __name__ == "__main__":
    raise SystemExit(main())
