"""Feedback waits for its event, holds back what is behind it, and never for long."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from analyzer.feedback_queue import FeedbackQueue, FeedbackRecord, Judged, Reach
from analyzer.served import ServedTable, served
from schemas.feedback import FeedbackRejectionCode
from schemas.prompts import PromptEnriched, SourcePosition
from tests.support.curating import about, enriched

T0_MS = 1_800_000_000_000
AT_END = Reach(at_end=True)
LATE_S = 10.0


class Scene:
    """A queue and a table, and the offsets and times of what comes in."""

    def __init__(self) -> None:
        self.queue = FeedbackQueue(capacity=5, late_seconds=LATE_S)
        self.table = ServedTable(100, 86_400.0, LATE_S)
        self.now_s = 0.0
        self.offsets = [0, 0]

    def serve(self, event: PromptEnriched, at_s: float = 0.0) -> None:
        self.table.add(served(event, T0_MS + round(at_s * 1000)))

    def give(self, value: dict[str, Any] | bytes | None, partition: int = 0, at_s: float = 0.0
             ) -> None:  # fmt: skip
        source = SourcePosition("prompts.feedback", partition, self.offsets[partition])
        self.offsets[partition] += 1
        data = msgspec.json.encode(value) if isinstance(value, dict) else value
        record = FeedbackRecord(source, T0_MS + round(at_s * 1000), b"key", data)
        self.queue.add(record, self.now_s)

    def judge(self, reach: Reach = AT_END, most: int = 100) -> Judged:
        services = self.table.services | {"quiet"}
        return self.queue.judge(self.table, reach, services, now_s=self.now_s, most=most)


def places(judged: Judged) -> list[tuple[int, int]]:
    sources = [each.attributed.source for each in judged.accepted]
    return [(source.partition, source.offset) for source in sources]


def test_unknown_feedback_holds_back_its_partition_alone() -> None:
    """It waits ten seconds, then is refused, and what is behind it counts in order."""
    scene, known, unknown = Scene(), enriched(1), enriched(2)
    scene.serve(known)
    scene.give(about(unknown, 0.5, attributed=False))
    scene.give(about(known, 0.5))
    scene.give(about(known, 0.5, attributed=False), partition=1)
    assert places(first := scene.judge()) == [(1, 0)]
    assert first.next_offsets == {1: 1}
    scene.now_s = 9.99
    assert scene.judge() == Judged([], [], {})
    scene.now_s = 10.0
    last = scene.judge()
    assert places(last) == [(0, 1)]
    (refused,) = last.rejected
    assert refused.letter.code is FeedbackRejectionCode.UNKNOWN_EVENT
    assert msgspec.json.decode(refused.letter.payload)["event_id"] == unknown.id
    assert last.next_offsets == {0: 2}
    assert len(scene.queue) == 0


def test_feedback_counts_as_soon_as_its_event_is_there() -> None:
    """No longer than it must."""
    scene, event = Scene(), enriched(1)
    scene.give(about(event, 0.5, attributed=False))
    assert not scene.judge().accepted
    scene.serve(event, at_s=3.0)
    (found,) = scene.judge().accepted
    assert found.by_table
    assert found.served is not None
    assert found.served.event.id == event.id


def test_a_table_that_is_behind_is_waited_for() -> None:
    """Also by feedback with an attribution: whether it makes a case is said by the event."""
    scene, event = Scene(), enriched(1)
    scene.serve(event)
    scene.give(about(event, 0.5), at_s=5.0)
    scene.now_s = 3600.0
    assert not scene.judge(Reach(at_end=False, to_ms=T0_MS + 4_999)).accepted
    assert scene.judge(Reach(at_end=False, to_ms=T0_MS + 5_000)).accepted


def test_in_a_backlog_the_brokers_time_decides() -> None:
    """Unknown feedback is refused once the table was read ten seconds beyond it, at once."""
    scene = Scene()
    scene.give(about(enriched(1), 0.5, attributed=False), at_s=5.0)
    scene.now_s = 3600.0
    assert not scene.judge(Reach(at_end=False, to_ms=T0_MS + 14_999)).rejected
    scene.now_s = 0.0
    assert scene.judge(Reach(at_end=False, to_ms=T0_MS + 15_000)).rejected


def test_the_service_of_an_attribution_must_exist() -> None:
    """One that has analyzers is known, though none of its events is remembered."""
    scene = Scene()
    scene.give(about(enriched(1, service="quiet"), 0.5))
    scene.give(about(enriched(1, service="nobody"), 0.5))
    scene.give(about(enriched(1, service="other"), 0.5, attributed=False))
    assert scene.queue.services() == {"quiet", "nobody"}
    judged = scene.judge()
    assert [each.attributed.attribution.service for each in judged.accepted] == ["quiet"]
    assert "'nobody'" in judged.rejected[0].letter.reason


def test_poison_is_refused_at_once() -> None:
    """Nothing has to be known for that, and a large record is not kept."""
    scene = Scene()
    scene.give(b"x" * 1_000_000)
    scene.give(None)
    assert len(scene.queue._waiting[0][0].given.payload) == 2**14  # type: ignore[union-attr]
    judged = scene.judge(Reach(at_end=False, to_ms=0))
    codes = [each.letter.code for each in judged.rejected]
    assert codes == [FeedbackRejectionCode.RECORD_TOO_LARGE, FeedbackRejectionCode.EMPTY]


def test_a_partition_can_be_full() -> None:
    """No more is read of it then; another one is not concerned."""
    scene = Scene()
    for _ in range(5):
        scene.give(about(enriched(1), 0.5, attributed=False), at_s=7.0)
    assert scene.queue.is_full(0)
    assert not scene.queue.is_full(1)
    assert scene.queue.oldest_ms(0) == T0_MS + 7_000
    assert scene.queue.oldest_ms(1) is None
    scene.queue.clear()
    assert len(scene.queue) == 0


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from("known unknown late poison".split())),
             max_size=40),
    st.integers(1, 5),
)  # fmt: skip
def test_every_piece_comes_out_once_and_in_order(pieces: list[tuple[int, str]], most: int) -> None:
    """Whatever stands in a partition: counted or refused, each once, in the order of offsets."""
    scene, known, late = Scene(), enriched(1), enriched(2)
    scene.serve(known)
    values = {
        "known": about(known, 0.5),
        "unknown": about(enriched(3), 0.5, attributed=False),
        "late": about(late, 0.5, attributed=False),
        "poison": b"poison",
    }
    out: dict[int, list[int]] = {0: [], 1: []}
    commits = {0: 0, 1: 0}
    for number, (partition, kind) in enumerate([*pieces, *[(-1, "")] * 100]):
        if partition >= 0:
            scene.give(values[kind], partition)
        if number == len(pieces) // 2:
            scene.serve(late)
        scene.now_s += 1.0
        judged = scene.judge(most=most)
        sources = [each.attributed.source for each in judged.accepted]
        sources += [each.letter.source for each in judged.rejected]
        for source in sorted(sources):
            out[source.partition].append(source.offset)
        for partition_, offset in judged.next_offsets.items():
            assert offset == max(out[partition_]) + 1
            commits[partition_] = offset
    for partition in (0, 1):
        assert out[partition] == list(range(scene.offsets[partition]))
        assert commits[partition] == scene.offsets[partition]
