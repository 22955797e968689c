"""The watch over the split itself: a comparison of arms that have lost users says nothing."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.control import GateReport, Verdict
from schemas.policy import GateRole, Policy
from schemas.rollout import BUCKETS
from streams.gates.judge import gate_alpha
from streams.gates.ratio_mismatch import RatioMismatch

__all__ = ["MISMATCH_ALPHA", "SAMPLE_RATIO", "SplitWatch", "new_split"]

MISMATCH_ALPHA = 0.001
"""Chance of ever pausing a rollout whose split is right. Of its own, since it is no harm to users
but a defect of the measurement; as small as others have it (GrowthBook: p < 0.001)."""

SAMPLE_RATIO = "sample-ratio"
"""The gate that reports name; no policy has it."""


class SplitWatch(msgspec.Struct, kw_only=True):
    """The evidence on the split of a stage, since it, or its resumption, began."""

    evidence: RatioMismatch
    alpha: float
    """What this period may spend."""
    mismatch: bool = False
    """Whether it was ever certified: later users do not take that back."""

    def take(self, buckets: npt.NDArray[np.uint16]) -> None:
        """Count the buckets of a batch's rows, shape (rows,)."""
        known = self.evidence.candidate + self.evidence.control
        self.evidence.update(buckets)
        if not self.mismatch and self.evidence.candidate + self.evidence.control > known:
            self.mismatch = self.evidence.log_e >= -math.log(self.alpha)

    def report(self) -> GateReport:
        """How the split stands, with the numbers seen and expected."""
        evidence = self.evidence
        seen = evidence.candidate + evidence.control
        share = evidence.candidate_buckets / BUCKETS
        verdict = Verdict.FAILED if self.mismatch else Verdict.INCONCLUSIVE
        reason = (
            f"sample ratio: {verdict}: {evidence.candidate} candidate and {evidence.control} "
            f"control buckets of users seen, {seen * share:.0f} and {seen * (1 - share):.0f} "
            f"expected; evidence of a mismatch {evidence.log_e:.2f} against "
            f"{-math.log(self.alpha):.2f} (log e-value, alpha {self.alpha:.2g})"
        )
        if self.mismatch:
            reason += (
                "; users of an arm are missing or misplaced, so the arms cannot be compared: find "
                "what loses them (crashes, time-outs, filters) before you go on"
            )
        return GateReport(
            gate=SAMPLE_RATIO,
            role=GateRole.SIGNAL,
            metric="bucket",
            objective=f"candidate share of users = {share * 100:g}%",
            verdict=verdict,
            reason=reason,
            samples=evidence.candidate,
            control_samples=evidence.control,
            value=evidence.candidate / seen if seen else None,
            limit=share,
            evidence=evidence.log_e,
            boundary=-math.log(self.alpha),
        )


def new_split(policy: Policy, stage: int, *, restart: int = 0) -> SplitWatch | None:
    """An empty watch over the split of a stage; None where nobody is split.

    In a shadow stage the shadow is the candidate arm.

    Args:
        policy: of the rollout.
        stage: which of its stages.
        restart: as for :func:`streams.watch.new_watch`.
    """
    share = policy.share_of(stage) or policy.stages[stage].shadow_percent / 100
    # Rounded as analyzers do.
    candidate_buckets = round(share * BUCKETS)
    if not 0 < candidate_buckets < BUCKETS:
        return None
    alpha = gate_alpha(MISMATCH_ALPHA, [], stages=len(policy.stages), restart=restart)
    return SplitWatch(evidence=RatioMismatch(candidate_buckets=candidate_buckets), alpha=alpha)
