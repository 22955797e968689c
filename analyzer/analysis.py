"""A poll's way through the analysis: rules for all, the semantic half for those that want it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from analyzer.measure import Row, rejected_row, result_row
from analyzer.pipeline import Accepted, Incoming, Refused, Semantic, admit, enriched, rejected
from analyzer.publish import Result
from analyzer.semantic import SemanticEngine, SemanticFailure
from analyzer.settings import AnalyzerSettings
from analyzer.shedding import LoadShedder
from schemas.prompts import FallbackReason, SourcePosition
from schemas.rollout import RolloutState

__all__ = ["Analyst", "Poll"]

log = logging.getLogger("driftgate.analyzer")


class Poll(NamedTuple):
    """A poll after its first half."""

    polled: float
    """When it was polled, by `time.perf_counter`."""
    rules_seconds: float
    admitted: list[Accepted | Refused]


class Analyst:
    """Analyses polls.

    Args:
        settings: of the worker.
        engine: the semantic half; whatever it fails with, the rules result is served.
    """

    def __init__(self, settings: AnalyzerSettings, engine: SemanticEngine) -> None:
        self._settings = settings
        self._engine = engine
        self._shedder = LoadShedder(settings.shed_lag_messages)

    def admit(self, records: Sequence[Incoming], state: RolloutState) -> Poll:
        """The first half, which needs no model: decode, validate, route, and analyse by rules.

        Args:
            records: of one poll.
            state: that all of them are routed by.
        """
        polled = time.perf_counter()
        admitted = [admit(record, state, self._settings.limits) for record in records]
        return Poll(polled, time.perf_counter() - polled, admitted)

    def admit_again(self, poll: Poll, state: RolloutState) -> Poll:
        """The same poll routed by a state that has come since; its time goes on."""
        again = self.admit([one.incoming for one in poll.admitted], state)
        return Poll(poll.polled, poll.rules_seconds + again.rules_seconds, again.admitted)

    async def finish(self, poll: Poll, *, lag_messages: int) -> tuple[list[Result], list[Row]]:
        """The semantic half, one poll at a time: every record's result and row, in their order.

        Args:
            poll: what was admitted.
            lag_messages: prompts that wait behind it.
        """
        polled, rules_seconds, admitted = poll
        accepted = [a for a in admitted if isinstance(a, Accepted)]
        semantic = await self._score(accepted, lag_messages, rules_done=polled + rules_seconds)
        semantic_done = time.perf_counter() - polled
        results, rows = [], []
        now_ms = time.time_ns() // 1_000_000
        who = {"service": self._settings.service, "worker_id": self._settings.worker_id}
        for one in admitted:
            if isinstance(one, Refused):
                event: Any = rejected(one, **who)
                rows.append(rejected_row(one))
            else:
                served = semantic.get((one.incoming.source, one.served.name))
                measured = semantic.get((one.incoming.source, one.measured.name))
                # What it took for each path: rules alone do not wait for the model.
                event = enriched(
                    one,
                    served,
                    rules_seconds=rules_seconds,
                    processing_seconds=rules_seconds if served is None else semantic_done,
                    batch_seconds=semantic_done,
                    **who,
                )
                seconds = rules_seconds if measured is None else semantic_done
                rows.append(result_row(one, measured, seconds))
            results.append(Result(event, one.incoming.result_key, now_ms))
        return results, rows

    async def _score(
        self, accepted: Sequence[Accepted], lag_messages: int, *, rules_done: float
    ) -> dict[tuple[SourcePosition, str], Semantic]:
        """The semantic half of every prompt that wants it, by prompt and deployment."""
        found: dict[tuple[SourcePosition, str], Semantic] = {}
        wanting: dict[str, list[Accepted]] = {}
        for one in accepted:
            for deployment in one.semantic_deployments:
                wanting.setdefault(deployment.name, []).append(one)
        if self._shedder.update(lag_messages):
            shed = Semantic(None, FallbackReason.SHED, 0.0, 0.0)
            return {(one.incoming.source, n): shed for n in wanting for one in wanting[n]}
        # What serves comes first: a candidate that hangs costs only itself.
        for name in sorted(wanting, key=lambda name: name not in {a.served.name for a in accepted}):
            batch = wanting[name]
            started = time.perf_counter()
            try:
                result = await self._engine.score(name, [one.prompt for one in batch])
            except SemanticFailure as failure:
                log.warning("%d prompts fall back to rules: %s", len(batch), failure)
                seconds = time.perf_counter() - started
                several = [
                    Semantic(
                        None, failure.reason, seconds, seconds, wait_seconds=started - rules_done
                    )
                ] * len(batch)
            else:
                several = [
                    Semantic(
                        scores,
                        None,
                        result.embed_seconds,
                        result.semantic_seconds,
                        features,
                        wait_seconds=started - rules_done,
                    )
                    for scores, features in zip(result.scores, result.fourier, strict=True)
                ]
            for one, semantic in zip(batch, several, strict=True):
                found[one.incoming.source, name] = semantic
        return found
