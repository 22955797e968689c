from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.gates import simulated_policy
from benchmarks.gates_detectors import ContrastMany, Driftgate
from benchmarks.gates_peers import MannWhitney, Oracle, RepeatedZ, Thresholds
from benchmarks.gates_world import BATCH_SECONDS, Arms, World, draw
from schemas.control import Verdict
from streams.gates.evidence import evidence_for, latency_cap
from streams.gates.judge import judge
from streams.gates.sustained import SustainedTimer

POLICY = simulated_policy()
WORLDS = [
    World(),
    World(latency_factor=1.4, score_factor=0.85, coherence=0.66, error=0.04, system_error=0.01),
]


def _of_one(gate, batch, i):
    """Control and candidate rows of rollout i, as `gate_samples` would give them."""
    n = batch.arms.candidate
    if gate.statistic.quantile is not None:
        return [], (batch.latency[i] > gate.parsed.limit).astype(float)
    if gate.metric.is_rate:
        hits = batch.system_errors if gate.metric == "system_error" else batch.errors
        return [], (np.arange(n) < hits[i]).astype(float)
    if gate.metric == "processing_seconds":
        return batch.latency_control[i], batch.latency[i]
    if gate.metric == "score":
        return batch.score_control[i], batch.score[i]
    return [], (batch.coherence if gate.metric == "coherence" else batch.relevance)[i]


@pytest.mark.parametrize("world", WORLDS)
def test_the_benchmark_simulates_the_evidence_that_decides(world):
    """Three rollouts of 120 batches: e-values and verdicts of arrays and of `judge` agree."""
    rng, rollouts = np.random.default_rng(41), 3
    many = Driftgate(POLICY, rollouts)
    gates = {gate.name: gate for gate in POLICY.gates}
    cap = latency_cap(POLICY.gates)
    singles = {
        (watched.gate.name, i): (
            evidence_for(watched.gate, alpha_breach=many.alpha, latency_cap_s=cap),
            SustainedTimer(required_ms=300_000, gap_ms=60_000),
        )
        for watched in many.gates
        for i in range(rollouts)
    }
    recent: dict[tuple[str, int], list[float]] = {key: [] for key in singles}
    failures = 0
    for number in range(120):
        batch = draw(world, Arms.of(0.25), rollouts, rng)
        failed = many.look(batch)
        log_e = {watched.gate.name: watched.log_e_breach for watched in many.gates}
        for (name, i), (evidence, timer) in singles.items():
            gate = gates[name]
            control, candidate = _of_one(gate, batch, i)
            evidence.update(control, candidate)
            assert evidence.log_e_breach == pytest.approx(log_e[name][i], abs=1e-6)
            if gate.sustained_seconds:
                recent[name, i] = [*recent[name, i][-14:], float(np.mean(candidate))]
                rate = np.mean(recent[name, i])
                timer.update(number * BATCH_SECONDS * 1000, breaching=rate > gate.parsed.limit)
            report = judge(
                gate,
                evidence,
                alpha_breach=many.alpha,
                alpha_good=0.05,
                timer=timer if gate.sustained_seconds else None,
                with_bounds=False,
            )
            assert (report.verdict is Verdict.FAILED) == failed[name][i]
            failures += report.verdict is Verdict.FAILED
    assert (failures > 0) is (world is not WORLDS[0])


def test_the_peers_know_good_from_bad():
    """Each peer fails all of 20 rollouts of a gross regression; the oracle none without one."""
    rng = np.random.default_rng(43)
    bad = World(latency_factor=2.0, score_factor=0.6, error=0.2)
    peers = [Thresholds(POLICY, 3), RepeatedZ(POLICY, 0.001), MannWhitney()]
    oracle = Oracle(alpha=0.001, kind="error", null=0.01, truth=0.2)
    fired = np.zeros((4, 20), dtype=bool)
    for _ in range(225):
        batch = draw(bad, Arms.of(0.25), 20, rng)
        fired |= [each.look(batch) for each in (*peers, oracle)]
    assert fired.all()
    oracle.begin_stage()
    quiet = [oracle.look(draw(World(), Arms.of(0.25), 20, rng)) for _ in range(50)]
    assert not np.any(quiet)


def test_what_the_arrays_do_not_model_is_refused():
    """A floor is not part of the simulation, so a gate with one must not be simulated without."""
    gate = next(gate for gate in POLICY.gates if gate.name == "latency-vs-control")
    floored = type(gate)(**{f: getattr(gate, f) for f in gate.__struct_fields__} | {"floor": 0.1})
    with pytest.raises(ValueError, match="floor"):
        ContrastMany(floored, 2, 0.001, None)
    assert math.isclose(sum(Arms.of(0.25).__dict__.values()), 100)
