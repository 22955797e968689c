"""Takes results, rejections, curated cases and feedback into traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.feedback import CuratedCase, FeedbackGiven
from schemas.prompts import PromptEnriched, PromptRejected
from schemas.topics import Topic, Topics
from streams.errors import SinkMissingError, SinkRefusedError, SinkUnavailableError, StreamsError
from streams.tracking.chunks import ChunkSize
from streams.tracking.drafts import FeedbackDraft, Kept, TraceDraft
from streams.tracking.feedback import feedback_draft
from streams.tracking.recent import Recent, RecentEvents
from streams.tracking.records import Record, made_ms, position_of
from streams.tracking.telemetry import TrackerTelemetry
from streams.tracking.traces import Tracing, curated_tags

__all__ = ["Calls", "TraceSink", "TraceTaker"]

log = logging.getLogger("driftgate.tracker")
T = TypeVar("T")


class Calls(Protocol):
    """See :class:`streams.tracking.mlflow_caller.Caller`."""

    probe: Callable[[], object]

    async def call(self, what: str, function: Callable[[], T]) -> T:
        """Until it succeeds."""

    async def once(self, function: Callable[[], T]) -> tuple[T, float]:
        """Once."""

    async def wait(self, what: str, error: StreamsError) -> None:
        """After a failure."""


class TraceSink(Protocol):
    """See :class:`streams.tracking.mlflow_sink.MlflowSink`."""

    def write_traces(self, drafts: Sequence[TraceDraft]) -> None:
        """All or an error."""

    def tag_trace(self, trace_id: str, tags: dict[str, str]) -> None:
        """Of a trace that is there."""

    def attach(self, draft: FeedbackDraft) -> None:
        """To a trace that is there."""


class TraceTaker:
    """Decides which traces are written, and has them written.

    Args:
        topics: full names.
        tracing: makes traces.
        cluster_id: Kafka's.
        sink: that they are written to.
        calls: how.
        telemetry: is told of everything, written or not.
        recent: events that were not sampled.
    """

    def __init__(
        self,
        topics: Topics,
        tracing: Tracing,
        cluster_id: str,
        sink: TraceSink,
        calls: Calls,
        telemetry: TrackerTelemetry,
        recent: RecentEvents,
    ) -> None:
        self._names = {topics.name(topic): topic for topic in Topic}
        self._tracing = tracing
        self._cluster_id = cluster_id
        self._sink = sink
        self._calls = calls
        self._telemetry = telemetry
        self._recent = recent
        self._size = ChunkSize()

    async def take(self, records: Sequence[Record]) -> None:
        """Take records; when it returns, MLflow has what was to be written."""
        drafts: list[TraceDraft] = []
        cases: list[CuratedCase] = []
        feedback: list[FeedbackDraft] = []
        for record in records:
            topic = self._names[record.topic]
            try:
                match topic:
                    case Topic.ENRICHED:
                        drafts += self._enriched(record)
                    case Topic.REJECTED:
                        event = cloudevents.decode_json(record.value, PromptRejected)
                        drafts.append(self._tracing.rejected(
                            event, made_ms=made_ms(record), published_ms=record.timestamp
                        ))  # fmt: skip
                    case Topic.CURATED:
                        # A tombstone says that a case is not kept any more; its trace stays.
                        if record.value is not None:
                            cases.append(cloudevents.decode_json(record.value, CuratedCase))
                    case Topic.FEEDBACK:
                        feedback.append(self._feedback(record))
            except DecodeError as error:
                self._telemetry.undecodable[topic] += 1
                log.warning(
                    "%s cannot be read and is passed over: %s",
                    position_of(record).event_id(), error,
                )  # fmt: skip
        # What is spoken of and was left out is written with the rest: in as few calls as can be.
        unwritten = [case for case in cases if not self._write_late(case, drafts)]
        for said in feedback:
            late = self._late(said.metadata["driftgate.event_id"], Kept.FEEDBACK)
            drafts += [late] if late else []
        await self._write(drafts)
        for case in unwritten:
            await self._mark(case)
        for said in feedback:
            await self._attach(said)

    def _write_late(self, case: CuratedCase, drafts: list[TraceDraft]) -> bool:
        """Whether the event of a case was left out and is remembered: it is then written."""
        draft = self._late(case.id, Kept.CURATED)
        if draft is None:
            return False
        drafts.append(draft._replace(tags=draft.tags | curated_tags(case)))
        self._telemetry.cases["written"] += 1
        return True

    def _enriched(self, record: Record) -> list[TraceDraft]:
        event = cloudevents.decode_json(record.value, PromptEnriched)
        kept = self._tracing.reason_to_keep(event)
        if kept is not None:
            return [
                self._tracing.enriched(
                    event, kept, made_ms=made_ms(record), published_ms=record.timestamp
                )
            ]
        self._telemetry.sampled_out += 1
        assert record.value is not None  # it was decoded
        self._recent.put(event.id, Recent(record.value, made_ms(record), record.timestamp))
        return []

    def _feedback(self, record: Record) -> FeedbackDraft:
        given = cloudevents.decode_json(record.value, FeedbackGiven)
        return feedback_draft(
            given, position_of(record), cluster_id=self._cluster_id, at_ms=record.timestamp
        )

    async def _mark(self, case: CuratedCase) -> None:
        """Mark a case on its trace; without one, it becomes a trace of its own."""
        tags = curated_tags(case)
        try:
            await self._calls.call(
                f"the case {case.id}",
                lambda: self._sink.tag_trace(self._tracing.id_of(case.id), tags),
            )
        except SinkMissingError:
            draft = self._tracing.curated(case)
            await self._write([draft._replace(tags=draft.tags | tags)])
            self._telemetry.cases["written"] += 1
        except SinkRefusedError as error:
            self._refused("case", case.id, error)
        else:
            self._telemetry.cases["marked"] += 1

    async def _attach(self, draft: FeedbackDraft) -> None:
        what = f"feedback on {draft.metadata['driftgate.event_id']}"
        try:
            await self._calls.call(what, lambda: self._sink.attach(draft))
        except SinkMissingError:
            # It was not sampled, and is too old to be written now: the counter says how many.
            self._telemetry.feedback["no_trace"] += 1
        except SinkRefusedError as error:
            self._refused("feedback", draft.metadata["driftgate.source"], error)
        else:
            self._telemetry.feedback["attached"] += 1

    def _late(self, event_id: str, kept: Kept) -> TraceDraft | None:
        """The trace of an event that was left out, while it is remembered."""
        recent = self._recent.pop(event_id)
        if recent is None:
            return None
        event = cloudevents.decode_json(recent.value, PromptEnriched)
        return self._tracing.enriched(
            event, kept, made_ms=recent.made_ms, published_ms=recent.published_ms
        )

    async def _write(self, drafts: Sequence[TraceDraft]) -> None:
        """Write traces, by as many at once as take about a second."""
        done = 0
        while done < len(drafts):
            part = drafts[done : done + self._size.traces]
            try:
                await self._write_part(part)
            except SinkRefusedError as error:
                if len(part) > 1:
                    # One of them is not taken: alone, it shows which.
                    self._size.traces = 1
                    continue
                self._refused("trace", part[0].event_id, error)
            except SinkUnavailableError as error:
                self._size.failed()
                await self._calls.wait(f"{len(part)} traces", error)
                continue
            done += len(part)

    async def _write_part(self, part: Sequence[TraceDraft]) -> None:
        if len(part) == 1:
            await self._calls.call(
                f"the trace of {part[0].event_id}", lambda: self._sink.write_traces(part)
            )
            self._size.took(1, 0.0)
        else:
            _, seconds = await self._calls.once(lambda: self._sink.write_traces(part))
            self._size.took(len(part), seconds)
        self._telemetry.traces.update(draft.kept for draft in part)
        known = part[:1]
        self._calls.probe = lambda: self._sink.write_traces(known)

    def _refused(self, kind: str, what: str, error: SinkRefusedError) -> None:
        self._telemetry.refused[kind] += 1
        log.error("MLflow does not take the %s of %s, it is passed over: %s", kind, what, error)
