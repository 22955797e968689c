"""How often the gates are wrong, and how fast they are right, beside what others do.

    python -m benchmarks.gates --json
    python -m benchmarks.gates --rollouts 100        # a try, in seconds

Rollouts are simulated, all at once: rows of both arms in batches of 100, every guardrail of the
default policy on, looked at after each batch, evidence anew in each stage. (The floor of the
latency contrast is taken away: both arms of the simulated service do comparable work.)

- identical arms, and arms that lie exactly on the limit of every gate (the worst case that is still
  no harm), through all stages: `false_rollback_rate` with its exact one-sided 95 % upper bound;
- the mission's regressions, from the start of the 25 % stage, and after a healthy quarter of an
  hour: `power` within 40,000 events, `median_delay_events` (both arms' rows since the regression
  began; a rollout that is not caught counts as the longest).

The oracle is a Wald SPRT that knows the true effect and the variances, at the same alpha a gate, on
the same batches; see `benchmarks/gates_peers.py` for the others.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from benchmarks.gates_detectors import Driftgate
from benchmarks.gates_peers import MannWhitney, Oracle, RepeatedZ, Thresholds
from benchmarks.gates_world import BATCH_ROWS, Arms, Batch, World, draw
from schemas.policy import Policy, default_policy

__all__ = ["main", "simulated_policy"]

Mask = npt.NDArray[np.bool_]

_STAGE_BATCHES = 225
"""A quarter of an hour, the default policy's shortest stay."""
_SHARES = (0.25, 0.25, 0.5, 0.95)
"""Of the candidate's rows in each stage: the shadow, 25 %, 50 %, and all but a holdback of 5 %."""
_DETECT_BATCHES = 400
_HEALTHY = World()
# p95 = 0.5 s for the candidate of a lognormal with CV 0.6 that is 10 % slower than the control.
_LIMITS = World(
    latency_s=0.21305, latency_factor=1.1, score_factor=0.95, coherence=0.7, relevance=0.6,
    error=0.01, system_error=0.001,
)  # fmt: skip
_REGRESSIONS = {
    "latency_20": _HEALTHY.with_(latency_factor=1.2),
    "accuracy_8": _HEALTHY.with_(score_factor=0.92),
    "error_rate_2": _HEALTHY.with_(error=0.02),
}
_TARGETS = {
    "latency_20": ("latency-vs-control",),
    "accuracy_8": ("score-vs-control",),
    "error_rate_2": ("semantic-errors", "errors-sustained"),
}


class _Detector(Protocol):
    def begin_stage(self) -> None: ...

    def look(self, batch: Batch) -> Mask | dict[str, Mask]: ...


def simulated_policy() -> Policy:
    """The default policy without the floor of a latency that differs in kind between the arms.

    And without the gates on feedback, which nobody gives here, and on analyzers, in which there is
    no chance.
    """
    policy = default_policy()
    gates = [
        msgspec.structs.replace(gate, floor=0.0)
        for gate in policy.gates
        if gate.metric.is_of_prompts
    ]
    return msgspec.structs.replace(policy, gates=gates)


def _simulate(
    plan: list[tuple[World, float, int]],
    detectors: Mapping[str, _Detector],
    rollouts: int,
    seed: int,
    say: Callable[[str], None],
    *,
    one_stage: bool = False,
) -> dict[str, npt.NDArray[np.int64]]:
    """The batch at which each detector (and each of driftgate's gates) first fails; -1 for never.

    Args:
        plan: worlds, the candidate's share in them, and for how many batches they last.
        detectors: by name.
        rollouts: at once.
        seed: of the rows.
        say: for progress.
        one_stage: whether evidence lives through the whole plan.
    """
    rng = np.random.default_rng(seed)
    first: dict[str, npt.NDArray[np.int64]] = {}
    number = 0
    for part, (world, share, batches) in enumerate(plan):
        arms = Arms.of(share)
        if part == 0 or not one_stage:
            for detector in detectors.values():
                detector.begin_stage()
        for _ in range(batches):
            batch = draw(world, arms, rollouts, rng)
            for name, detector in detectors.items():
                found = detector.look(batch)
                by_name = {name: found}
                if isinstance(found, dict):
                    by_name = {f"{name}:{gate}": mask for gate, mask in found.items()}
                    by_name[name] = np.any(list(found.values()), axis=0)
                for key, mask in by_name.items():
                    at = first.setdefault(key, np.full(rollouts, -1))
                    at[(at < 0) & mask] = number
            number += 1
            if number % 50 == 0:
                say(f"batch {number}")
    return first


def _rate(first: npt.NDArray[np.int64]) -> dict[str, float]:
    n, k = len(first), int((first >= 0).sum())
    upper = 1.0 if k == n else float(beta.ppf(0.95, k + 1, n - k))
    return {"rate": k / n, "upper_95": round(upper, 5)}


def _delay(first: npt.NDArray[np.int64], begun: int) -> dict[str, float | None]:
    early = (first >= 0) & (first < begun)
    caught = first >= begun
    delays = np.where(caught, first - begun + 1, _DETECT_BATCHES) * BATCH_ROWS
    judged = delays[~early]
    return {
        "power": float(caught[~early].mean()) if judged.size else None,
        "median_delay_events": float(np.median(judged)) if judged.size else None,
        "p90_delay_events": float(np.quantile(judged, 0.9)) if judged.size else None,
        "failed_before": float(early.mean()),
    }


def _oracle(name: str, world: World, alpha: float) -> Oracle:
    if name == "error_rate_2":
        return Oracle(alpha=alpha, kind="error", null=0.01, truth=world.error)
    if name == "latency_20":
        mean, factor, kind = world.latency_s, 1.1, "latency"
        truth = mean * (world.latency_factor - factor)
        variances = ((0.6 * mean) ** 2, (0.6 * mean * world.latency_factor) ** 2)
    else:
        mean, factor, kind = world.score, 0.95, "score"
        truth = mean * (world.score_factor - factor)
        means = (mean, mean * world.score_factor)
        variances = (means[0] * (1 - means[0]) / 13.8, means[1] * (1 - means[1]) / 13.8)
    return Oracle(alpha=alpha, kind=kind, null=0.0, truth=truth, factor=factor, variances=variances)


def _peers(policy: Policy, alpha: float) -> dict[str, _Detector]:
    return {
        "thresholds_failure_limit_0": Thresholds(policy, 0),
        "thresholds_failure_limit_3": Thresholds(policy, 3),
        "repeated_z_alpha_0.05": RepeatedZ(policy, 0.05),
        "repeated_z_same_alpha": RepeatedZ(policy, alpha),
        "kayenta_mann_whitney": MannWhitney(),
    }


def run(rollouts: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All scenarios.

    Args:
        rollouts: a scenario.
        seed: of the rows.
        say: for progress.
    """
    policy = simulated_policy()
    alpha = Driftgate(policy, 1).alpha
    nulls: dict[str, Any] = {}
    for i, (name, world) in enumerate({"identical": _HEALTHY, "on_the_limits": _LIMITS}.items()):
        detectors = {"driftgate": Driftgate(policy, rollouts), **_peers(policy, alpha)}
        plan = [(world, share, _STAGE_BATCHES) for share in _SHARES]
        first = _simulate(plan, detectors, rollouts, seed + i, lambda s, n=name: say(f"{n}: {s}"))
        nulls[name] = {key: _rate(at) for key, at in first.items()}
    found: dict[str, Any] = {}
    for i, (name, world) in enumerate(_REGRESSIONS.items()):
        for late in (False, True):
            healthy = _STAGE_BATCHES if late else 0
            oracle = _oracle(name, world, alpha)
            plan = [(_HEALTHY, 0.25, healthy), (world, 0.25, _DETECT_BATCHES)]
            detectors = {"driftgate": Driftgate(policy, rollouts), **_peers(policy, alpha)}
            key = f"{name}{'_late' if late else ''}"
            first = _simulate(
                plan, detectors, rollouts, seed + 10 + 2 * i + late,
                lambda s, n=key: say(f"{n}: {s}"), one_stage=True,
            )  # fmt: skip
            # The oracle knows when the regression begins, too.
            known = _simulate(
                plan[1:], {"oracle": oracle}, rollouts, seed + 10 + 2 * i, lambda _: None
            )
            rows = {detector: _delay(at, healthy) for detector, at in first.items()}
            rows["oracle_sprt"] = _delay(known["oracle"], 0)
            target = np.stack([first[f"driftgate:{gate}"] for gate in _TARGETS[name]])
            at = np.where(target < 0, 10**9, target).min(axis=0)
            rows["driftgate_target_gates"] = _delay(np.where(at == 10**9, -1, at), healthy)
            found[key] = rows
    return _report(rollouts, seed, alpha, nulls, found)


def _report(
    rollouts: int, seed: int, alpha: float, nulls: dict[str, Any], found: dict[str, Any]
) -> dict[str, Any]:
    def ratio(rows: dict[str, Any]) -> float:
        optimum = rows["oracle_sprt"]["median_delay_events"]
        return round(float(rows["driftgate"]["median_delay_events"] / optimum), 3)

    peers = [key for key in nulls["identical"] if ":" not in key and key != "driftgate"]
    return {
        "rollouts": rollouts,
        "seed": seed,
        "alpha": 0.05,
        "alpha_a_gate_and_stage": alpha,
        "looks_a_rollout": _STAGE_BATCHES * len(_SHARES),
        "machine": f"{platform.machine()} {platform.system()} Python {platform.python_version()}",
        "false_rollback_rate": nulls["identical"]["driftgate"]["rate"],
        "false_rollback_upper_95": nulls["identical"]["driftgate"]["upper_95"],
        "false_rollback_rate_on_the_limits": nulls["on_the_limits"]["driftgate"]["rate"],
        "false_rollback_upper_95_on_the_limits": nulls["on_the_limits"]["driftgate"]["upper_95"],
        "power": {name: rows["driftgate"]["power"] for name, rows in found.items()},
        "median_delay_events": {
            name: rows["driftgate"]["median_delay_events"] for name, rows in found.items()
        },
        "delay_ratio_to_oracle_sprt": {name: ratio(rows) for name, rows in found.items()},
        "gates_on_the_limits": {
            key.split(":")[1]: value["rate"]
            for key, value in nulls["on_the_limits"].items()
            if ":" in key
        },
        "oracle_sprt": {name: rows["oracle_sprt"] for name, rows in found.items()},
        "driftgate_target_gates": {
            name: rows["driftgate_target_gates"] for name, rows in found.items()
        },
        "peers": {
            peer: {
                "false_rollback_rate": nulls["identical"][peer]["rate"],
                "false_rollback_rate_on_the_limits": nulls["on_the_limits"][peer]["rate"],
                **{name: rows[peer] for name, rows in found.items()},
            }
            for peer in peers
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Run and print; exit code 1 when the false rollback rate is above alpha."""
    parser = argparse.ArgumentParser(description="False rollbacks and delays of the gates.")
    parser.add_argument("--rollouts", type=int, default=2000, help="a scenario (default 2000)")
    parser.add_argument("--seed", type=int, default=20240501)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(arguments)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {text}", file=sys.stderr, flush=True)

    report = run(options.rollouts, options.seed, say)
    report["seconds"] = round(time.monotonic() - begun, 1)
    if options.json:
        print(json.dumps(report))
    else:
        print(json.dumps(report, indent=2))
    return int(report["false_rollback_rate"] > report["alpha"])


if __name__ == "__main__":
    raise SystemExit(main())
