"""Capacity and cache: what the workers could take, and what would help (M55, M61, M62)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from schemas.log import CacheLookups, ModelState, SharedCacheState
from streams.console.seen_workers import WorkerSeen, is_live

__all__ = ["CacheView", "Capacity", "cache_view", "capacity"]

WANTED_HIT_RATE = 0.7
"""The objective of the default policy (M69)."""
SPARE = 0.7
"""A worker is planned to be busy for at most so much of the time: beyond that queues grow with
every burst."""
_FEW = 200
"""Look-ups below which a hit rate says little."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the live workers do, and could do."""

    live: int
    prompts_per_s: float
    cpu_share: float | None
    """Mean of the live workers, of one core each."""
    rss_bytes: int
    lag_messages: int
    ceiling_per_s: float | None
    """Prompts a second that they could take at the present cost; None while too little is known."""
    prompts_per_cpu_s: float | None
    """Efficiency (M52)."""
    wanted_workers: int | None
    advice: list[str]


class CacheView(msgspec.Struct, frozen=True, kw_only=True):
    """How the workers' caches do."""

    hit_rate: float | None
    """Of prompts' own vectors, both arms, since the workers started."""
    control_hit_rate: float | None
    candidate_hit_rate: float | None
    entries: int
    evictions: int
    shared: SharedCacheState
    shared_hit_rate: float | None
    advice: list[str]


def capacity(workers: Iterable[WorkerSeen], now_ms: int, *, most_workers: int) -> Capacity:
    """What the workers can take.

    The ceiling rests on the CPU time that a prompt cost in the last seconds: one core a worker,
    since an analyzer computes in one thread.

    Args:
        workers: of one service.
        now_ms: wall clock, ms since the epoch.
        most_workers: partitions of the prompts, the most workers that can share them.
    """
    live = [w for w in workers if is_live(w, now_ms)]
    rates = [w.prompts_per_s for w in live if w.prompts_per_s is not None]
    shares = [w.cpu_share for w in live if w.cpu_share is not None]
    rate, cpu = sum(rates), sum(shares)
    lag = sum(w.beat.lag_messages for w in live)
    efficiency = rate / cpu if rate >= 1.0 and cpu > 0.01 else None
    # More than one core is used where the runtime has threads of its own.
    cores = max([1.0, *shares])
    ceiling = efficiency * cores * len(live) if efficiency else None
    wanted = math.ceil(rate / (efficiency * cores * SPARE)) if efficiency else None
    advice = []
    if not live:
        advice.append("No worker is alive: start `driftgate analyzer`.")
    if wanted is not None and wanted > len(live):
        if wanted > most_workers:
            advice.append(
                f"The load needs {wanted} workers at {SPARE:.0%} busy, and {most_workers} "
                "partitions let no more work: plan more DRIFTGATE_PROMPT_PARTITIONS."
            )
        else:
            advice.append(f"The load needs {wanted} workers at {SPARE:.0%} busy: start more.")
    elif wanted is not None and len(live) > wanted + 1:
        advice.append(f"{wanted} workers would do at {SPARE:.0%} busy; spare ones take failures.")
    if ceiling is not None and lag > 10 * ceiling:
        advice.append(f"{lag} prompts wait: more than 10 s of work for all workers.")
    advice += [
        f"{w.beat.worker_id} has no model: it serves rules."
        for w in live
        if w.beat.model is ModelState.UNAVAILABLE
    ]
    return Capacity(
        live=len(live),
        prompts_per_s=rate,
        cpu_share=cpu / len(shares) if shares else None,
        rss_bytes=sum(w.beat.rss_bytes for w in live),
        lag_messages=lag,
        ceiling_per_s=ceiling,
        prompts_per_cpu_s=efficiency,
        wanted_workers=wanted,
        advice=advice,
    )


def cache_view(workers: Iterable[WorkerSeen], now_ms: int) -> CacheView:
    """How the caches of the live workers do, and what would help.

    Args:
        workers: of one service.
        now_ms: wall clock, ms since the epoch.
    """
    beats = [w.beat for w in workers if is_live(w, now_ms)]
    control = _sum(b.cache_control for b in beats)
    candidate = _sum(b.cache_candidate for b in beats)
    both = _sum((control, candidate))
    hit_rate = _rate(both.hits, both.misses)
    evictions = sum(b.cache_evictions for b in beats)
    states = {b.shared_cache.state for b in beats}
    worst = (SharedCacheState.AWAY, SharedCacheState.READ_ONLY, SharedCacheState.READY)
    shared = next((state for state in worst if state in states), SharedCacheState.OFF)
    advice = []
    low = hit_rate is not None and hit_rate < WANTED_HIT_RATE
    if low and both.hits + both.misses >= _FEW:
        if evictions * 4 > both.misses:
            advice.append(
                f"{evictions} vectors were given up for room: raise DRIFTGATE_CACHE_BYTES."
            )
        elif len(beats) > 1 and shared is SharedCacheState.OFF:
            advice.append(
                "Each worker misses what another has: share a Redis (DRIFTGATE_REDIS_URL), or key "
                "prompts by user."
            )
        else:
            advice.append(
                "The cache has room, so prompts seldom repeat: a larger one would not help."
            )
    if shared is SharedCacheState.AWAY:
        advice.append("The shared cache does not answer: workers go on with their own.")
    if shared is SharedCacheState.READ_ONLY:
        advice.append("The shared cache stores nothing: it is full, or read-only for us.")
    return CacheView(
        hit_rate=hit_rate,
        control_hit_rate=_rate(control.hits, control.misses),
        candidate_hit_rate=_rate(candidate.hits, candidate.misses),
        entries=sum(b.cache_entries for b in beats),
        evictions=evictions,
        shared=shared,
        shared_hit_rate=_rate(
            sum(b.shared_cache.hits for b in beats), sum(b.shared_cache.misses for b in beats)
        ),
        advice=advice,
    )


def _sum(parts: Iterable[CacheLookups]) -> CacheLookups:
    found = list(parts)
    return CacheLookups(hits=sum(p.hits for p in found), misses=sum(p.misses for p in found))


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None
