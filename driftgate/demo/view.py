"""What the demo shows: a live timeline on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from driftgate.commands.control import event_line
from schemas.control import ControlEvent, GateStatus, Verdict, WindowMetrics
from streams.split import SAMPLE_RATIO

__all__ = ["LiveView", "PlainView", "View"]

_STYLES = {
    Verdict.SUCCESSFUL: "green",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.ERROR: "magenta",
    Verdict.FAILED: "bold red",
}
_STATUS_SECONDS = 2.0


class View(Protocol):
    """Where the story goes."""

    def say(self, text: str) -> None:
        """A sentence of the narrator."""

    def event(self, event: ControlEvent) -> None:
        """A decision."""

    def window(self, metrics: WindowMetrics) -> None:
        """Metrics of an arm over all segments."""

    def gates(self, status: GateStatus) -> None:
        """How the gates stand."""

    def close(self) -> None:
        """The end; what comes after is plain output."""


class PlainView:
    """Lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._arms: dict[str, WindowMetrics] = {}
        self._said_at = 0.0

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(f"[{elapsed:6.1f} s] {text}", markup=False)

    def say(self, text: str) -> None:
        """See :class:`View`."""
        self._line(text)

    def event(self, event: ControlEvent) -> None:
        """See :class:`View`."""
        self._line(event_line(event))

    def window(self, metrics: WindowMetrics) -> None:
        """See :class:`View`."""
        self._arms[metrics.arm] = metrics

    def gates(self, status: GateStatus) -> None:
        """See :class:`View`."""
        now = time.monotonic()
        if now - self._said_at < _STATUS_SECONDS:
            return
        self._said_at = now
        # The split is never certified to be right, only to be wrong.
        done = Verdict.SUCCESSFUL
        open_gates = [
            g.gate for g in status.gates if g.verdict is not done and g.gate != SAMPLE_RATIO
        ]
        arms = ", ".join(_arm_text(self._arms[arm]) for arm in sorted(self._arms))
        self._line(
            f"stage {status.stage}, green {status.share:.0%}, {status.measured} measured; {arms}; "
            f"gates not certified: {', '.join(open_gates) or 'none'}"
        )

    def close(self) -> None:
        """See :class:`View`."""


class LiveView:
    """A picture that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._started = time.monotonic()
        self._events: deque[Text] = deque(maxlen=14)
        self._arms: dict[str, WindowMetrics] = {}
        self._status: GateStatus | None = None
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    def say(self, text: str) -> None:
        """See :class:`View`."""
        elapsed = time.monotonic() - self._started
        self._events.append(Text(f"{elapsed:6.1f} s  {text}", style="cyan"))
        self._draw()

    def event(self, event: ControlEvent) -> None:
        """See :class:`View`."""
        elapsed = time.monotonic() - self._started
        bad = event.__struct_config__.tag in ("gate.breached", "rollout.rolled_back")
        self._events.append(
            Text(f"{elapsed:6.1f} s  {event_line(event)}", style="bold red" if bad else "bold")
        )
        self._draw()

    def window(self, metrics: WindowMetrics) -> None:
        """See :class:`View`."""
        self._arms[metrics.arm] = metrics
        self._draw()

    def gates(self, status: GateStatus) -> None:
        """See :class:`View`."""
        self._status = status
        self._draw()

    def close(self) -> None:
        """See :class:`View`."""
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        events = Panel(Group(*self._events), title="events", title_align="left")
        self._live.update(Group(self._head(), self._arm_table(), self._gate_table(), events))

    def _head(self) -> Text:
        status = self._status
        if status is None:
            return Text("waiting for the first window")
        bar = "█" * round(status.share * 40)
        return Text.assemble(
            (f"stage {status.stage}  ", "bold"),
            ("green ", "green"),
            (f"{bar:<40}", "green"),
            f" {status.share:.0%} of users   {status.measured} prompts measured",
        )

    def _arm_table(self) -> Table:
        made = Table(title="newest window", title_justify="left", expand=False)
        for name in ("arm", "prompts", "p95 ms", "errors", "cache", "score", "coherence",
                     "relevance"):  # fmt: skip
            made.add_column(name, justify="left" if name == "arm" else "right")
        for arm in sorted(self._arms):
            w = self._arms[arm]
            cache = f"{w.cache_hits / w.cache_lookups:.0%}" if w.cache_lookups else "-"
            made.add_row(
                arm,
                str(w.prompts),
                _number(w.processing_seconds_p95, 1000, "{:.0f}"),
                str(w.system_errors + w.semantic_errors),
                cache,
                _number(w.score_mean),
                _number(w.coherence_mean),
                _number(w.relevance_mean),
            )
        return made

    def _gate_table(self) -> Table:
        made = Table(title="gates", title_justify="left", expand=False)
        for name in ("gate", "role", "objective", "value", "limit", "rows", "verdict"):
            made.add_column(name)
        for gate in self._status.gates if self._status else ():
            made.add_row(
                gate.gate,
                gate.role,
                gate.objective,
                _number(gate.value),
                _number(gate.limit),
                str(gate.samples),
                Text(gate.verdict, style=_STYLES[gate.verdict]),
            )
        return made


def _number(value: float | None, factor: float = 1.0, form: str = "{:.3f}") -> str:
    return "-" if value is None else form.format(value * factor)


def _arm_text(w: WindowMetrics) -> str:
    errors = w.system_errors + w.semantic_errors
    return (
        f"{w.arm}: {w.prompts} prompts, p95 {_number(w.processing_seconds_p95, 1000, '{:.0f}')} "
        f"ms, {errors} errors"
    )
