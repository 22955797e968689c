"""Every prompt yields one result, and is measured once."""

from __future__ import annotations

from schemas.settings import KafkaSettings
from tests.support.topics import measured, prompt, submit, wait_for_outcome
from tests.support.workers import settings_of, working


async def test_every_prompt_yields_one_result(kafka: KafkaSettings) -> None:
    """Read committed, each source position stands once, and is measured once (M1)."""
    sent = await submit(
        kafka, [prompt(f"Explain topic {n} to a child", f"p-{n}") for n in range(200)]
    )
    async with working(settings_of(kafka)):
        found = await wait_for_outcome(kafka, len(sent))
    assert found.positions == sorted(sent)
    assert not found.rejected
    assert (await measured(kafka)).positions == sorted((p.partition, p.offset) for p in sent)
