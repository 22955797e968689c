"""How often drift is said where there is none, and how soon another topic is found.

    python -m benchmarks.drift A.jsonl B.jsonl --json
    python -m benchmarks.drift prompts.jsonl:domain=banking prompts.jsonl:domain=travel

A and B are prompts as `driftgate produce` takes them; `FILE:KEY=VALUE` takes the rows of a file
that have a value. In each run half of A, drawn by the run's seed, becomes the reference, as
`driftgate drift calibrate` makes it; the stream is drawn from the other half, which the reference
has not seen. Drawn again and again those prompts are a population of their own, a little off from
the reference: what is a false alarm here includes that.

- `false_alarms_per_100k`: alarms in a stream of A alone;
- for each share of B: `detected`, the share of runs in which there is an alarm within the horizon,
  and `median_delay_events`, prompts since B began (a run without an alarm counts as the horizon).

`ours` is the monitor's watch, all detectors together under one average run length. Each single
detector stands alone under that same run length. HDDM-W sees fallbacks, in place of a topic: one in
a thousand at first, then that share more. River's DummyDriftDetector looks at nothing and says
drift every 500 prompts: what a delay is worth without its false alarms. `us_per_prompt` is the
watch's CPU time in the monitor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river.drift.dummy import DummyDriftDetector

from analyzer.centroids import distances_to
from analyzer.encoder import Encoder, HashingEncoder
from analyzer.encoder_choice import choose_encoder
from analyzer.features import SemanticFeatures
from analyzer.fourier import FourierMap
from analyzer.model import locate_model
from benchmarks.machine import describe_machine
from driftgate.drifting import Measured, make_reference, measure
from driftgate.producing import BadRow, read_prompts
from schemas.drift import DriftFeature, DriftRules
from schemas.drift_reference import ReferenceFile
from schemas.log import COLUMNS, RowFlag, Rows
from schemas.policy import default_policy
from schemas.prompts import PromptSubmitted
from schemas.rollout import NO_BUCKET
from streams.drift.adwin import CLOCK, Adwin
from streams.drift.bits import BIT_ROWS
from streams.drift.blocks import BLOCK_ROWS
from streams.drift.detector import Detector
from streams.drift.hddm_w import HddmW
from streams.drift.page_hinkley import PageHinkley
from streams.drift.rff_mmd import new_rff_mmd
from streams.drift.scalar import CLIP, SIGNS
from streams.drift.sums import ArmSums
from streams.drift.watch import new_drift_watch
from streams.samples import Samples

__all__ = ["main"]

Floats = npt.NDArray[np.float64]

_RECORD_ROWS = 50
_BEFORE = 2_000
"""Prompts of A before B comes."""
_HORIZON = 5_000
_SHARES = (0.05, 0.2, 1.0)
_DUMMY_EVENTS = 500
_CLEAR_ROWS = 1_000
_LATENCY_S = 0.1


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", help="FILE or FILE:KEY=VALUE; reference and stream")
    parser.add_argument("b", help="the same; what is mixed in")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--events", type=int, default=100_000, help="of A alone, in each run")
    parser.add_argument("--average-run-length", type=float, default=200_000.0)
    parser.add_argument("--encoder", default="auto", help="auto, openvino, onnx, ... or hashing")
    asked = parser.parse_args()
    encoder = _encoder(asked.encoder)
    scorer = SemanticFeatures(encoder)
    a, b = (_measured(name, encoder, scorer) for name in (asked.a, asked.b))
    tally = _Tally()
    for seed in range(asked.runs):
        _run(a, b, encoder, seed, asked, tally)
        print(f"run {seed + 1}/{asked.runs}", file=sys.stderr)
    found = {
        "machine": describe_machine(),
        "a": {"prompts": asked.a, "rows": len(a.chars)},
        "b": {"prompts": asked.b, "rows": len(b.chars)},
        "encoder": encoder.name,
        "runs": asked.runs,
        "events": asked.runs * asked.events,
        "horizon": _HORIZON,
        "average_run_length": asked.average_run_length,
        "us_per_prompt": round(median(tally.us), 2),
        **tally.report(asked.runs * asked.events),
    }
    print(json.dumps(found, indent=None if asked.json else 2))


def _encoder(name: str) -> Encoder:
    return HashingEncoder() if name == "hashing" else choose_encoder(name, locate_model(None))


def _measured(selector: str, encoder: Encoder, scorer: SemanticFeatures) -> Measured:
    file, _, condition = selector.partition(":")
    key, _, value = condition.partition("=")
    prompts = [
        row
        for row in read_prompts(Path(file))
        if not isinstance(row, BadRow) and (not key or _value(row, key) == value)
    ]
    if not prompts:
        sys.exit(f"{selector}: no such prompts")
    print(f"{selector}: {len(prompts)} prompts", file=sys.stderr)
    # Rows of one file may name domains that are only labels: the scorer is not to see them.
    plain = [PromptSubmitted(prompt=one.prompt, context=one.context) for one in prompts]
    weight = max(each.semantic_weight for each in default_policy().deployments)
    return measure(plain, encoder, scorer, weight)


def _value(row: PromptSubmitted, key: str) -> str:
    own = getattr(row, key, None) if key in ("domain", "id", "user_id") else None
    return str(own if own is not None else row.attributes.get(key))


class _Stream(NamedTuple):
    """Rows of A, and of B in its place where it is mixed in."""

    measured: Measured
    distance: Floats
    features: npt.NDArray[np.float32]
    fallback: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.distance)


class _World:
    """One run: a reference of half of A, and streams of the other half and of B."""

    def __init__(self, a: Measured, b: Measured, encoder: Encoder, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(len(a.chars))
        half = len(order) // 2
        self.file = make_reference(a.where(order[:half]), encoder, source="A", seed=seed)
        rest = a.where(order[half:])
        self._pool = Measured(*(np.concatenate(pair) for pair in zip(rest, b, strict=True)))
        self._own, self._all = len(rest.chars), len(self._pool.chars)
        fourier = self.file.reference.fourier
        self._features = FourierMap(
            encoder.dimension,
            seed=fourier.seed,
            count=fourier.count,
            bandwidth=fourier.bandwidth,
        ).features(self._pool.vectors)
        self._distance = distances_to(self.file.centroid_vectors(), self._pool.vectors)

    def stream(self, before: int, mixed: int, share: float) -> _Stream:
        """Prompts of A alone, then with a share of B among them."""
        rows = before + mixed
        index = self.rng.integers(0, self._own, rows)
        late = np.arange(rows) >= before
        other = late & (self.rng.random(rows) < share)
        index[other] = self.rng.integers(self._own, self._all, int(other.sum()))
        failing = np.where(late, 0.001 + share, 0.001)
        return _Stream(
            self._pool.where(index),
            self._distance[index],
            self._features[index],
            self.rng.random(rows) < failing,
        )


def _run(a: Measured, b: Measured, encoder: Encoder, seed: int, asked: Any, tally: _Tally) -> None:
    world = _World(a, b, encoder, seed)
    run_length = asked.average_run_length
    singles = _singles(world.file, run_length)
    alone = world.stream(asked.events, 0, 0.0)
    alarms, us = _ours(alone, world.file, run_length)
    tally.us.append(us)
    tally.false("ours", len(alarms))
    tally.false("dummy", len(_dummy(alone)))
    for name, single in singles.items():
        tally.false(name, len(single(alone)))
    for share in _SHARES:
        mixed = world.stream(_BEFORE, _HORIZON, share)
        tally.found("ours", share, _ours(mixed, world.file, run_length)[0])
        tally.found("dummy", share, _dummy(mixed))
        for name, single in singles.items():
            tally.found(name, share, single(mixed))


def _ours(stream: _Stream, file: ReferenceFile, run_length: float) -> tuple[list[int], float]:
    """Rows after which the monitor says drift, and its CPU time a row in us."""
    # Fallbacks are HDDM-W's alone here: there would be two kinds of drift at once.
    features = [f for f in DriftFeature if f is not DriftFeature.FALLBACK]
    rules = DriftRules(
        features=features,
        average_run_length=run_length,
        clear_rows=_CLEAR_ROWS,
        reference=file.reference,
    )
    watch = new_drift_watch(rules)
    records = [
        _record(stream, start, file.reference.id) for start in range(0, len(stream), _RECORD_ROWS)
    ]
    said = []
    began = time.process_time()
    for number, (samples, sums) in enumerate(records):
        found = watch.take(samples, (None, sums), number, rules)
        said += [(number + 1) * _RECORD_ROWS for finding in found if finding.begins]
    return said, (time.process_time() - began) / len(stream) * 1e6


def _record(stream: _Stream, start: int, reference: str) -> tuple[Samples, ArmSums]:
    part = slice(start, start + _RECORD_ROWS)
    measured = Measured(*(column[part] for column in stream.measured))
    count = len(measured.chars)
    # One latency a record, as in a worker; it comes from the place, so that runs can be repeated.
    latency = _LATENCY_S * float(np.exp(0.2 * np.sin(start * 12.9898)))
    columns: dict[str, Any] = {
        "partition": 0,
        "offset": np.arange(start, start + count),
        "flags": RowFlag.CANDIDATE | RowFlag.SEMANTIC,
        "segment": 0,
        "processing_seconds": latency,
        "embed_seconds": latency,
        "rules_score": measured.rules_score,
        "score": measured.score,
        "coherence": measured.coherence,
        "relevance": measured.relevance,
        "centroid_distance": stream.distance[part],
        "prompt_chars": measured.chars,
        "bucket": NO_BUCKET,
    }
    rows = Rows(
        **{
            name: np.broadcast_to(np.asarray(columns[name]), (count,)).astype(dtype)
            for name, dtype in COLUMNS.items()
        }
    )
    sums = stream.features[part].sum(axis=0)
    return Samples(rows), ArmSums(reference, count, sums)


_Look = Callable[[_Stream], list[int]]


def _singles(file: ReferenceFile, run_length: float) -> dict[str, _Look]:
    """Every detector by itself, by name: rows after which it says drift."""
    looks: dict[str, _Look] = {
        "hddm_w/fallback": _hddm_w(run_length),
        "rff_mmd/embeddings": _rff_mmd(file, run_length),
    }
    for known in file.reference.features:
        looks[f"page_hinkley/{known.feature}"] = _scalar(known.feature, file, run_length, ph=True)
        looks[f"adwin/{known.feature}"] = _scalar(known.feature, file, run_length, ph=False)
    return dict(sorted(looks.items()))


def _scalar(feature: DriftFeature, file: ReferenceFile, run_length: float, *, ph: bool) -> _Look:
    known = file.reference.feature(feature)
    assert known is not None  # it is one of its features
    block_sd = known.sd / BLOCK_ROWS**0.5
    tolerance = known.tolerance * BLOCK_ROWS**0.5
    sign = SIGNS[feature]

    def new() -> Detector:
        if not ph:
            return Adwin(delta=CLOCK * BLOCK_ROWS / run_length)
        return PageHinkley(
            tolerance=tolerance,
            threshold=max(known.page_hinkley.at(run_length), CLIP + 1.0),
            mode="up" if sign else "both",
        )

    def is_drift(detector: Detector) -> bool:
        if not isinstance(detector, Adwin):
            return True
        return (detector.mean if sign else abs(detector.mean)) > tolerance

    def look(stream: _Stream) -> list[int]:
        z = (sign or 1) * (_blocks(_column(stream, feature)) - known.mean) / block_sd
        return _alarms(new, np.clip(z, -CLIP, CLIP).tolist(), is_drift)

    return look


def _column(stream: _Stream, feature: DriftFeature) -> Floats:
    measured = stream.measured
    match feature:
        case DriftFeature.RELEVANCE:
            return measured.relevance
        case DriftFeature.COHERENCE:
            return measured.coherence
        case DriftFeature.SCORE_GAIN:
            return measured.score - measured.rules_score
        case DriftFeature.CENTROID_DISTANCE:
            return stream.distance
        case _:
            return np.log1p(measured.chars)


def _hddm_w(run_length: float) -> _Look:
    def look(stream: _Stream) -> list[int]:
        rates = _blocks(stream.fallback.astype(np.float64), BIT_ROWS).tolist()
        confidence = BIT_ROWS / run_length
        return _alarms(lambda: HddmW(confidence=confidence, bits=BIT_ROWS), rates, rows=BIT_ROWS)

    return look


def _rff_mmd(file: ReferenceFile, run_length: float) -> _Look:
    fourier = file.reference.fourier
    mean = fourier.means().astype(np.float64)
    threshold = fourier.threshold.at(run_length)

    def look(stream: _Stream) -> list[int]:
        mmd, said, quiet_from = new_rff_mmd(fourier.count), [], 0
        for start in range(0, len(stream), _RECORD_ROWS):
            some = stream.features[start : start + _RECORD_ROWS]
            mmd.take(some.sum(axis=0, dtype=np.float64), len(some))
            statistic = mmd.statistic(
                mean,
                variance=1.0 - float(mean @ mean),
                spread=fourier.spread,
                reference_rows=file.reference.rows,
            )
            if statistic is not None and statistic > threshold and start >= quiet_from:
                said.append(start + len(some))
                quiet_from = start + _CLEAR_ROWS
        return said

    return look


def _blocks(values: Floats, size: int = BLOCK_ROWS) -> Floats:
    whole = len(values) // size * size
    return values[:whole].reshape(-1, size).mean(axis=1)


def _alarms(
    new: Callable[[], Detector],
    numbers: Sequence[float],
    is_drift: Callable[[Detector], bool] = lambda _: True,
    rows: int = BLOCK_ROWS,
) -> list[int]:
    """Rows after which a detector says drift; after each it rests, and begins anew."""
    detector, said, rests = new(), [], 0
    for place, number in enumerate(numbers, 1):
        if place <= rests:
            continue
        if detector.update(number) and is_drift(detector):
            said.append(place * rows)
            detector, rests = new(), place + _CLEAR_ROWS // rows
    return said


def _dummy(stream: _Stream) -> list[int]:
    detector, said = DummyDriftDetector(t_0=_DUMMY_EVENTS), []
    for row in range(1, len(stream) + 1):
        detector.update(0.0)
        if detector.drift_detected:
            said.append(row)
    return said


class _Tally:
    """What came of all runs, by detector."""

    def __init__(self) -> None:
        self.us: list[float] = []
        self._false: dict[str, int] = {}
        self._delays: dict[str, dict[float, list[float]]] = {}

    def false(self, name: str, alarms: int) -> None:
        self._false[name] = self._false.get(name, 0) + alarms

    def found(self, name: str, share: float, said: Sequence[int]) -> None:
        """Take the rows after which drift was said in a stream with a share of B."""
        after = [row - _BEFORE for row in said if row > _BEFORE]
        delays = self._delays.setdefault(name, {}).setdefault(share, [])
        delays.append(min(after, default=float("inf")))

    def report(self, events: int) -> dict[str, Any]:
        """All detectors: ours, the single ones, and the one that looks at nothing."""
        every = {name: self._one(name, events) for name in self._false}
        return {
            "ours": every.pop("ours"),
            "dummy": every.pop("dummy"),
            "detectors": every,
        }

    def _one(self, name: str, events: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "false_alarms_per_100k": round(self._false[name] / events * 1e5, 3),
        }
        for share, delays in self._delays[name].items():
            hits = sum(delay <= _HORIZON for delay in delays)
            found[f"{share * 100:g}_percent"] = {
                "detected": round(hits / len(delays), 3),
                "median_delay_events": min(median(delays), _HORIZON),
            }
        return found


if __name__ == "__main__":
    main()
