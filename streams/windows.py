"""Windows of log time: which are due when a pane closes, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from schemas.control import WindowMetrics
from schemas.policy import Windows
from streams.feedback import FEEDBACK_METRICS
from streams.metrics import CANDIDATE, CONTROL
from streams.panes import COUNTS, SUMS, ArmTotals, Pane, merge_totals, quantile

__all__ = ["due_windows", "window_metrics"]

ARM_NAMES = {CONTROL: "control", CANDIDATE: "candidate"}
ALL = "all"
"""The segment name of the totals over all segments."""


def due_windows(
    windows: Windows, panes: Sequence[Pane], *, from_ms: int, closed_ms: int, now_ms: int
) -> Iterator[tuple[int, bool]]:
    """The windows to report when log time reaches a new pane: (start in ms, final).

    Each open window that holds a closed pane is provisional, each whose end is reached is final.
    A window whose end was reported before, or that holds no pane at all, is left out.

    Args:
        windows: how log time is cut.
        panes: the closed panes that are kept, oldest first.
        from_ms: no window starts before; where the policy in force began.
        closed_ms: up to where windows were reported final before.
        now_ms: the start of the pane that log time is in now.
    """
    if not panes:
        return
    hop, length = windows.hop_ms, windows.window_ms
    first = (panes[0].start_ms - length) // hop * hop + hop
    for start in range(first, panes[-1].start_ms + 1, hop):
        end = start + length
        if start >= from_ms and end > closed_ms:
            yield start, end <= now_ms


def window_metrics(
    panes: Sequence[Pane],
    windows: Windows,
    *,
    start_ms: int,
    final: bool,
    service: str,
    rollout_id: str | None,
    stage: int,
    share: float,
) -> Iterator[WindowMetrics]:
    """The metrics of one window: for each arm that has rows, over all and for each segment.

    The control arm over all is always there, so that a silent service shows as zeros.
    """
    end_ms = start_ms + windows.window_ms
    segments = merge_totals(p for p in panes if start_ms <= p.start_ms < end_ms)
    total = [ArmTotals.zero(), ArmTotals.zero()]
    for arms in segments.values():
        for into, add in zip(total, arms, strict=True):
            into.add(add)
    reported = {ALL: total}
    if len(segments) > 1:
        reported |= {name: arms for name, arms in segments.items() if name != ALL}
    for segment, arms in reported.items():
        for arm, totals in enumerate(arms):
            some = totals.counts.any() or totals.feedback.any()
            if some or (segment == ALL and arm == CONTROL):
                yield msgspec.convert(
                    {
                        "id": f"{service}/{start_ms}-{end_ms}/{ARM_NAMES[arm]}/{segment}"
                        + ("" if final else f"/{panes[-1].start_ms}"),
                        "service": service,
                        "rollout_id": rollout_id,
                        "stage": stage,
                        "share": share,
                        "start_ms": start_ms,
                        "end_ms": end_ms,
                        "arm": ARM_NAMES[arm],
                        "segment": segment,
                        "final": final,
                        **_counts(totals),
                        **_statistics(totals),
                    },
                    WindowMetrics,
                )


def _counts(totals: ArmTotals) -> dict[str, int]:
    return dict(zip(COUNTS, (int(n) for n in totals.counts), strict=True))


def _statistics(totals: ArmTotals) -> dict[str, float | None]:
    counts = _counts(totals)
    found: dict[str, float | None] = {}
    for name, value in zip(SUMS, totals.sums, strict=True):
        rows = counts["semantic_prompts" if name in ("coherence", "relevance") else "prompts"]
        found[f"{name}_mean"] = float(value) / rows if rows else None
    for metric, (rows, value) in zip(FEEDBACK_METRICS, totals.feedback.tolist(), strict=True):
        found[f"{metric}_samples"] = int(rows)
        found[f"{metric}_mean"] = value / rows if rows else None
    for percent in (50, 95, 99):
        found[f"processing_seconds_p{percent}"] = quantile(totals.histogram, percent / 100)
    return found
