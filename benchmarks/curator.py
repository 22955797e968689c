"""What a curator costs: results and feedback a second of one core, and memory a result.

    python -m benchmarks.curator --json
    python -m benchmarks.curator --events 200000 --repeats 5

Records as they stand in Kafka, without the broker: `events_per_s` decodes results, puts them into
the table and looks for cases; `feedback_per_s` decodes feedback, half of it without an attribution,
looks it up and encodes batches for the log. Rates are a second of CPU time, the median over the
repeats with the least and the most beside it. `bytes_per_event` is what the process grows by for
each result that the table holds, with prompts of so many characters (the table keeps 2,000).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from statistics import median
from typing import Any

import msgspec
import psutil

from analyzer.casebook import Casebook
from analyzer.curation import Curation, CurationLimits
from analyzer.drift_alarms import DriftAlarms
from analyzer.feedback import feedback_batches
from analyzer.feedback_queue import FeedbackQueue, FeedbackRecord, Reach
from analyzer.served import ServedTable, served
from benchmarks.machine import describe_machine
from schemas.cloudevents import decode_json
from schemas.log import encode_log_record
from schemas.prompts import (
    Arm,
    Assignment,
    Path,
    PromptEnriched,
    RuleScores,
    SemanticScores,
    SourcePosition,
    Timings,
)

__all__ = ["main"]

_T0_MS = 1_800_000_000_000
_WORDS = "please explain how this part of the program works and why it fails on large input".split()
_TURN = 1_000
"""Pieces of feedback that are judged at once."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="What a curator costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--events", type=int, default=50_000, help="results of a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "events": asked.events,
        "repeats": asked.repeats,
    }
    for chars in (200, 2_000):
        print(f"memory with {chars} characters", file=sys.stderr)
        found[f"bytes_per_event_{chars}"] = round(memory(asked.events, chars))
    values = [encoded(event(n, 200)) for n in range(asked.events)]
    feedback = [piece(n) for n in range(asked.events)]
    rates: dict[str, list[float]] = {"events_per_s": [], "feedback_per_s": []}
    for number in range(asked.repeats):
        print(f"{number + 1}/{asked.repeats}", file=sys.stderr)
        table = ServedTable(asked.events, 86_400.0, 10.0)
        began = time.process_time()
        take(table, values)
        rates["events_per_s"].append(asked.events / (time.process_time() - began))
        began = time.process_time()
        join(table, feedback)
        rates["feedback_per_s"].append(asked.events / (time.process_time() - began))
    for name, several in rates.items():
        found[name] = round(median(several))
        found[f"{name}_range"] = [round(min(several)), round(max(several))]
    print(json.dumps(found, indent=None if asked.json else 2))


def event(number: int, chars: int) -> PromptEnriched:
    """A result; one in twenty is a problem."""
    words = [_WORDS[(number * 7 + n * (number % 11 + 1)) % len(_WORDS)] for n in range(chars // 4)]
    source = SourcePosition("prompts", number % 4, number)
    relevance = 0.3 if number % 20 == 0 else 0.8
    return PromptEnriched(
        id=source.event_id(),
        prompt_id=f"prompt-{number}",
        user_id=f"user-{number % 1000}",
        service="bench",
        source=source,
        prompt=f"{number} {' '.join(words)}"[:chars],
        path=Path.SEMANTIC,
        fallback_reason=None,
        assignment=Assignment(
            arm=Arm.CANDIDATE,
            deployment="semantic",
            rollout_id="5ba43505d32464a4",
            rollout_revision=2,
            bucket=number % 10_000,
            salt="5ba43505d32464a4",
        ),
        rules=RuleScores(
            structure=0.7, clarity=0.6, specificity=0.5, actionability=0.4, completeness=0.3,
            overall=0.5,
        ),
        semantic=SemanticScores(
            coherence=0.9, relevance=relevance, density=0.8, clarity=0.7, specificity=0.6,
            actionability=0.5, overall=0.7, domain="backend", domain_cosine=0.4,
            centroid_distance=0.5, cache_hit=False,
        ),
        score=0.56,
        semantic_weight=0.3,
        timings=Timings(
            rules_seconds=0.0001, embed_seconds=0.01, semantic_seconds=0.001,
            processing_seconds=0.02,
        ),
        worker_id="analyzer-1",
    )  # fmt: skip


def encoded(one: PromptEnriched) -> bytes:
    """As it stands in Kafka."""
    return msgspec.json.encode(one)


def piece(number: int) -> bytes:
    """Feedback on a result, every second piece with an attribution."""
    said: dict[str, Any] = {
        "event_id": f"prompts/{number % 4}/{number}",
        "kind": "user_rating",
        "value": 0.75,
        "actor": f"user-{number % 1000}",
    }
    if number % 2:
        said["attribution"] = {
            "service": "bench",
            "arm": "candidate",
            "deployment": "semantic",
            "rollout_id": "5ba43505d32464a4",
            "rollout_revision": 2,
            "bucket": number % 10_000,
            "salt": "5ba43505d32464a4",
            "segment": "rest",
        }
    return msgspec.json.encode(said)


def take(table: ServedTable, values: list[bytes]) -> int:
    """Results into the table and the curation; how many cases there were."""
    limits = CurationLimits()
    curation = Curation(limits, Casebook(limits.remembered), DriftAlarms(), Counter())
    cases = 0
    for number, value in enumerate(values):
        # Both readers decode, as in the process.
        at_ms = _T0_MS + number
        table.add(served(decode_json(value, PromptEnriched), at_ms))
        cases += len(curation.see(served(decode_json(value, PromptEnriched), at_ms), number))
    return cases


def join(table: ServedTable, feedback: list[bytes]) -> None:
    """Feedback into batches for the log."""
    queue = FeedbackQueue(_TURN, 10.0)
    counted = 0
    for first in range(0, len(feedback), _TURN):
        for number, value in enumerate(feedback[first : first + _TURN], first):
            source = SourcePosition("prompts.feedback", 0, number)
            queue.add(FeedbackRecord(source, _T0_MS + number, None, value), 0.0)
        judged = queue.judge(table, Reach(at_end=True), {"bench"}, now_s=0.0, most=_TURN)
        for batch in feedback_batches([each.attributed for each in judged.accepted]):
            encode_log_record(batch)
        counted += len(judged.accepted)
    assert counted == len(feedback)


def memory(events: int, chars: int) -> float:
    """Bytes a result in a table."""
    before = psutil.Process().memory_info().rss
    table = ServedTable(events, 86_400.0, 10.0)
    for number in range(events):
        one = decode_json(encoded(event(number, chars)), PromptEnriched)
        table.add(served(one, _T0_MS + number))
    grown = psutil.Process().memory_info().rss - before
    assert len(table) == events
    return grown / events


if __name__ == "__main__":
    main()
