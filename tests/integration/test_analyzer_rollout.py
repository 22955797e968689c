"""Workers obey the newest rollout state, say so, and are not misled by bad records (M44-M50)."""

from __future__ import annotations

from functools import partial

import msgspec

from analyzer.kafka_backpressure import MAX_UNDER_WAY
from schemas import cloudevents
from schemas.log import Heartbeat, ModelState, RowFlag
from schemas.prompts import Arm
from schemas.prompts import Path as Taken
from schemas.rollout import Phase, RolloutState
from schemas.settings import KafkaSettings
from schemas.topics import Topic
from tests.support.topics import (
    Prompt,
    heartbeats,
    measured,
    prompt,
    publish_state,
    put,
    submit,
    wait_for_outcome,
)
from tests.support.workers import HeldEncoder, model_of, rolling, settings_of, until, working


def prompts(count: int, name: str = "p") -> list[Prompt]:
    return [prompt(f"Explain subject number {n}", f"{name}-{n}") for n in range(count)]


async def acknowledged(kafka: KafkaSettings, revision: int, worker: str = "w-1") -> Heartbeat:
    async def found() -> Heartbeat | None:
        said = await heartbeats(kafka, worker)
        return next((one for one in said if one.applied_revision == revision), None)

    beat: Heartbeat = await until(f"{worker} acknowledges revision {revision}", found)
    return beat


async def is_ready(kafka: KafkaSettings, worker: str) -> bool:
    return any(beat.model is ModelState.READY for beat in await heartbeats(kafka, worker))


async def test_late_worker_obeys_the_newest_state_at_once(kafka: KafkaSettings) -> None:
    """A worker that starts in mid-rollout routes its first prompt by the newest state."""
    for revision in range(1, 6):
        await publish_state(kafka, rolling(revision, share=revision / 10))
    await publish_state(kafka, rolling(6, share=0.0, phase=Phase.ROLLED_BACK))
    sent = await submit(kafka, prompts(20))
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    assert {one.assignment.rollout_revision for one in found.enriched} == {6}
    assert {one.assignment.deployment for one in found.enriched} == {"baseline"}
    assert {one.applied_revision for one in await heartbeats(kafka)} == {6}


async def test_change_is_acknowledged_at_once(kafka: KafkaSettings) -> None:
    """Idle workers apply a new state between two polls, and do not wait for their next heartbeat.

    That their model is there they say at once, too.

    The next regular heartbeat is ten minutes away.
    """
    one, two = (settings_of(kafka, name, heartbeat_seconds=600.0) for name in ("w-1", "w-2"))
    async with working(one), working(two):
        for worker in ("w-1", "w-2"):
            await until(f"{worker} has its model", partial(is_ready, kafka, worker))
        for state in (rolling(1), rolling(2, share=0.0, phase=Phase.ROLLED_BACK)):
            await publish_state(kafka, state)
            await acknowledged(kafka, state.revision, "w-1")
            await acknowledged(kafka, state.revision, "w-2")
        await submit(kafka, prompts(10))
        found = await wait_for_outcome(kafka, 10)
    assert {each.path for each in found.enriched} == {Taken.RULES}
    said = [beat.applied_revision for beat in await heartbeats(kafka, "w-1")]
    assert [revision for revision in said if revision] == [1, 2, 2]


async def test_a_busy_worker_takes_no_more_under_the_old_state(kafka: KafkaSettings) -> None:
    """What is in the model is finished; the poll behind it and all later ones obey the new one."""
    encoder = HeldEncoder()
    await publish_state(kafka, rolling(1))
    settings = settings_of(kafka, max_poll_records=4, semantic_timeout_seconds=50.0)
    async with working(settings, lambda: model_of(encoder)) as worker:
        try:
            await until("the model is loaded", lambda: worker._engine.model)
            sent = await submit(kafka, prompts(20), partition=0)
            await until("the model has a poll", encoder.asked.is_set)
            await until("another waits for it", lambda: len(worker._under_way) == MAX_UNDER_WAY)
            await publish_state(kafka, rolling(2, share=0.0, phase=Phase.ROLLED_BACK))
            await until("it has heard", lambda: worker._follower.state.revision == 2)
        finally:
            encoder.let_go.set()
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    by_offset = sorted(found.enriched, key=lambda one: one.source.offset)
    revisions = [one.assignment.rollout_revision for one in by_offset]
    in_model = revisions.count(1)
    assert 0 < in_model <= settings.max_poll_records
    assert revisions == [1] * in_model + [2] * (len(sent) - in_model)


async def test_bad_state_is_passed_over(kafka: KafkaSettings) -> None:
    """Records that are no state of this service change nothing, and the next good one is obeyed."""
    other = msgspec.structs.replace(rolling(9), service="another")
    wrong = cloudevents.encode_json(rolling(7)).replace(b'"progressing"', b'"soaring"')
    bad = [
        (b"default", b"\xff not a state"),
        (b"default", b"{}"),
        (b"default", b"[" * 50_000),
        (b"default", wrong),
        (b"default", None),
        (b"another", cloudevents.encode_json(other)),
        # Keyed for us by mistake.
        (b"default", cloudevents.encode_json(other)),
    ]
    await publish_state(kafka, rolling(1, share=0.0))
    for key, value in bad:
        await put(kafka, Topic.ROLLOUT, key, value)
    async with working(settings_of(kafka)):
        await acknowledged(kafka, 1)
        for key, value in bad:
            await put(kafka, Topic.ROLLOUT, key, value)
        await publish_state(kafka, rolling(2))
        await acknowledged(kafka, 2)
        sent = await submit(kafka, prompts(3))
        found = await wait_for_outcome(kafka, len(sent))
    assert {one.assignment.rollout_revision for one in found.enriched} == {2}
    assert {beat.applied_revision for beat in await heartbeats(kafka)} == {1, 2}


async def test_shadow_serves_blue_and_measures_green(kafka: KafkaSettings) -> None:
    """At stage 0 green is computed and measured for its share, and no user sees it (M45)."""
    await publish_state(kafka, rolling(1, share=0.0, shadow_share=0.5, stage=0))
    async with working(settings_of(kafka)) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        sent = await submit(kafka, prompts(60))
        found = await wait_for_outcome(kafka, len(sent))
    assert {one.path for one in found.enriched} == {Taken.RULES}
    assert {one.assignment.deployment for one in found.enriched} == {"baseline"}
    assert not any(one.semantic or one.fallback_reason for one in found.enriched)
    shadowed = {
        (one.source.partition, one.source.offset)
        for one in found.enriched
        if one.assignment.shadow_deployment == "semantic"
    }
    assert 10 < len(shadowed) < 50
    rows = await measured(kafka)
    green = RowFlag.SHADOW | RowFlag.SEMANTIC | RowFlag.CANDIDATE
    assert {place for place, flags in rows.flags.items() if flags & green == green} == shadowed
    assert {place for place, flags in rows.flags.items() if flags & green} == shadowed


async def test_share_splits_users_and_sticks(kafka: KafkaSettings) -> None:
    """Half of the users get green, each always the same, and the arm is measured (M47)."""
    await publish_state(kafka, rolling(1, share=0.5))
    several = [prompt(f"Explain subject {n}", user_id=f"user-{n % 20}") for n in range(60)]
    async with working(settings_of(kafka)) as worker:
        await until("the model is loaded", lambda: worker._engine.model)
        await submit(kafka, several)
        found = await wait_for_outcome(kafka, len(several))
    arms: dict[str | None, set[Arm]] = {}
    for one in found.enriched:
        arms.setdefault(one.user_id, set()).add(one.assignment.arm)
        assert (one.path is Taken.SEMANTIC) == (one.assignment.arm is Arm.CANDIDATE)
    assert all(len(each) == 1 for each in arms.values())
    assert set.union(*arms.values()) == {Arm.CONTROL, Arm.CANDIDATE}
    batch: RolloutState = rolling(1, share=0.5)
    assert {(b.revision, b.rollout_id) for b in (await measured(kafka)).batches} == {
        (batch.revision, batch.rollout_id)
    }
