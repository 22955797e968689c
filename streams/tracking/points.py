"""From windows and gate reports to metrics of a run."""

from __future__ import annotations

import math

from schemas.control import GateReport, GateStatus, Verdict, WindowMetrics
from streams.tracking.drafts import Points, RunRef

__all__ = ["STATUS_EVERY_MS", "StatusFilter", "report_values", "status_points", "window_points"]

STATUS_EVERY_MS = 10_000
"""Log time between two states of the gates that become metrics. One comes with each pane, every 2 s
with about 50 numbers: all of them would be two million rows a day, and make the page slow; much
rarer ones would not show how a gate came to its verdict."""
ALL_SEGMENTS = "all"
_VERDICTS = {Verdict.SUCCESSFUL: 0, Verdict.INCONCLUSIVE: 1, Verdict.ERROR: 2, Verdict.FAILED: 3}
"""From best to worst, as in `driftgate_gate_state`."""
_COUNTS = (
    "prompts",
    "rejected",
    "system_errors",
    "semantic_prompts",
    "semantic_errors",
    "cache_lookups",
    "cache_hits",
    "satisfaction_samples",
    "accuracy_samples",
)
_MEANS = (
    "processing_seconds_mean",
    "processing_seconds_p50",
    "processing_seconds_p95",
    "processing_seconds_p99",
    "rules_score_mean",
    "score_mean",
    "coherence_mean",
    "relevance_mean",
    "satisfaction_mean",
    "accuracy_mean",
)


def window_points(window: WindowMetrics) -> Points | None:
    """The metrics of a window, at its end; None for one that is provisional."""
    if not window.final:
        return None
    values: dict[str, float] = {name: float(getattr(window, name)) for name in _COUNTS}
    values |= {name: mean for name in _MEANS if (mean := getattr(window, name)) is not None}
    seconds = (window.end_ms - window.start_ms) / 1000
    values["prompts_per_second"] = window.prompts / seconds if seconds > 0 else math.nan
    values["cache_hit_rate"] = _rate(window.cache_hits, window.cache_lookups)
    # Of all that were tried, as the gates count them.
    errors = window.semantic_errors
    values["semantic_error_rate"] = _rate(errors, window.semantic_prompts + errors)
    values["system_error_rate"] = _rate(window.system_errors, window.prompts + window.system_errors)
    segment = "" if window.segment == ALL_SEGMENTS else f"{window.segment}/"
    return Points(
        RunRef(window.service, window.rollout_id),
        window.end_ms,
        {f"{window.arm}/{segment}{n}": v for n, v in values.items() if math.isfinite(v)},
    )


def status_points(status: GateStatus) -> Points:
    """How the gates and the drift detectors stand."""
    values: dict[str, float] = {
        "rollout/share": status.share,
        "rollout/stage": float(status.stage),
        "workers/live": float(len(status.live_workers)),
    }
    for report in status.gates:
        values |= report_values(report)
    for reading in status.drift:
        name = f"drift/{reading.feature}/{reading.detector}"
        values[f"{name}/drifting"] = float(reading.drifting)
        if reading.statistic is not None and math.isfinite(reading.statistic):
            values[f"{name}/statistic"] = reading.statistic
    return Points(RunRef(status.service, status.rollout_id), status.at_ms, values)


def report_values(report: GateReport) -> dict[str, float]:
    """The numbers of a gate's report."""
    values = {"verdict": float(_VERDICTS[report.verdict]), "samples": float(report.samples)}
    for name in ("value", "limit", "lower", "upper"):
        number: float | None = getattr(report, name)
        # A bound may be infinite while there is little evidence.
        if number is not None and math.isfinite(number):
            values[name] = number
    return {f"gate/{report.gate}/{name}": number for name, number in values.items()}


class StatusFilter:
    """Passes one state of the gates in each stretch of log time."""

    def __init__(self) -> None:
        self._last: dict[RunRef, int] = {}

    def passes(self, status: GateStatus) -> bool:
        """Whether it is the first of its run and stretch."""
        run = RunRef(status.service, status.rollout_id)
        stretch = status.at_ms // STATUS_EVERY_MS
        if self._last.get(run) == stretch:
            return False
        # A service has one rollout at a time: older ones are not spoken of any more.
        self._last = {r: s for r, s in self._last.items() if r.service != run.service}
        self._last[run] = stretch
        return True


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
