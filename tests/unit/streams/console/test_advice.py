"""Capacity, cache and workers: what the numbers say and what would help (M55, M61, M62)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.log import CacheLookups, ModelState, SharedCache, SharedCacheState
from streams.console.advice import cache_view, capacity
from streams.console.seen_workers import RATE_MS, WorkerSeen, heard_again, is_live
from tests.support.folding import T0_MS, heartbeat


def worker(
    name: str = "w1", *, cpu: float = 0.5, rate: float = 50.0, seen_ms: int = T0_MS, **beat: Any
) -> WorkerSeen:
    return WorkerSeen(
        beat=msgspec.structs.replace(heartbeat(name), **beat),
        seen_ms=seen_ms, since_ms=T0_MS, base_ms=T0_MS, base_cpu_seconds=0.0, base_prompts=0,
        cpu_share=cpu, prompts_per_s=rate,
    )  # fmt: skip


def test_rates_are_of_what_was_done_between_two_heartbeats() -> None:
    """CPU and prompts a second come from differences; a restart begins anew and is counted."""
    beat = heartbeat("w1")
    seen = heard_again(None, beat, T0_MS)
    assert (seen.cpu_share, seen.prompts_per_s, seen.restarts) == (None, None, 0)
    later = msgspec.structs.replace(beat, cpu_seconds=2.5, prompts=500)
    early = heard_again(seen, later, T0_MS + 1000)
    assert early.cpu_share is None
    assert early.seen_ms == T0_MS + 1000
    seen = heard_again(seen, later, T0_MS + RATE_MS)
    assert (seen.cpu_share, seen.prompts_per_s) == (0.5, 100.0)
    again = heard_again(seen, msgspec.structs.replace(beat, incarnation="w1/2"), T0_MS + 9000)
    assert (again.restarts, again.since_ms, again.cpu_share) == (1, T0_MS + 9000, None)


def test_counters_that_go_back_are_no_negative_rates() -> None:
    """A heartbeat that comes late does not make a worker work backwards."""
    seen = heard_again(None, msgspec.structs.replace(heartbeat(), prompts=100), T0_MS)
    after = heard_again(seen, heartbeat(), T0_MS + RATE_MS)
    assert after.prompts_per_s == 0


@pytest.mark.parametrize(
    ("late_ms", "leaving", "live"),
    [(0, False, True), (6_000, False, True), (6_001, False, False), (0, True, False)],
)
def test_a_worker_is_live_for_three_heartbeats_and_a_little(
    late_ms: int, leaving: bool, live: bool
) -> None:
    """The rule of the monitor, with two seconds for the way to the page."""
    seen = worker(interval_ms=1000, leaving=leaving)
    assert is_live(seen, T0_MS + late_ms) is live


def test_the_ceiling_follows_from_the_cost_of_a_prompt() -> None:
    """Half a core for 50 prompts a second is 100 prompts a core second: two workers take 200."""
    found = capacity([worker("a"), worker("b")], T0_MS, most_workers=4)
    assert (found.live, found.prompts_per_s, found.cpu_share) == (2, 100.0, 0.5)
    assert found.prompts_per_cpu_s == 100.0
    assert found.ceiling_per_s == 200.0
    assert found.wanted_workers == 2
    assert found.advice == []


@pytest.mark.parametrize(
    ("workers", "most", "says"),
    [
        ([], 4, "start `driftgate analyzer`"),
        ([worker(cpu=0.95)], 4, "The load needs 2 workers"),
        ([worker(cpu=0.95)], 1, "plan more DRIFTGATE_PROMPT_PARTITIONS"),
        ([worker(n, cpu=0.02, rate=2.0) for n in "abc"], 4, "1 workers would do"),
        ([worker(lag_messages=5_000)], 4, "5000 prompts wait"),
        ([worker(model=ModelState.UNAVAILABLE)], 4, "w1 has no model: it serves rules."),
    ],
)
def test_advice_on_capacity(workers: list[WorkerSeen], most: int, says: str) -> None:
    """Each finding says what to do."""
    assert any(says in line for line in capacity(workers, T0_MS, most_workers=most).advice)


def test_idle_workers_have_no_ceiling() -> None:
    """Nothing is concluded from almost no prompts."""
    found = capacity([worker(cpu=0.01, rate=0.1)], T0_MS, most_workers=4)
    assert (found.ceiling_per_s, found.wanted_workers, found.prompts_per_cpu_s) == (None,) * 3


def lookups(hits: int, misses: int) -> CacheLookups:
    return CacheLookups(hits=hits, misses=misses)


@pytest.mark.parametrize(
    ("beats", "says"),
    [
        ([{"cache_candidate": lookups(50, 250), "cache_evictions": 200}], "DRIFTGATE_CACHE_BYTES"),
        ([{"cache_candidate": lookups(50, 250)}], "seldom repeat"),
        ([{"cache_candidate": lookups(50, 250)}] * 2, "DRIFTGATE_REDIS_URL"),
        ([{"shared_cache": SharedCache(state=SharedCacheState.AWAY)}], "does not answer"),
        ([{"shared_cache": SharedCache(state=SharedCacheState.READ_ONLY)}], "stores nothing"),
        ([{"cache_candidate": lookups(250, 50)}], None),
        ([{"cache_candidate": lookups(1, 9)}], None),
    ],
)
def test_advice_on_the_cache(beats: list[dict[str, Any]], says: str | None) -> None:
    """Low hit rates have three cures, and a cache without a problem needs none (M61)."""
    found = cache_view([worker(f"w{n}", **beat) for n, beat in enumerate(beats)], T0_MS)
    if says is None:
        assert found.advice == []
    else:
        assert says in found.advice[0]


def test_hit_rates_are_by_arm() -> None:
    """Blue's and green's look-ups are kept apart, and added up."""
    seen = worker(cache_control=lookups(1, 3), cache_candidate=lookups(9, 3))
    found = cache_view([seen], T0_MS)
    assert (found.control_hit_rate, found.candidate_hit_rate, found.hit_rate) == (0.25, 0.75, 0.625)
    assert cache_view([], T0_MS).hit_rate is None
