"""A decision's evidence against its boundary, for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["save_png", "terminal_plot"]

_WIDTH, _HEIGHT = 64, 12


def terminal_plot(
    seconds: Sequence[float], values: Sequence[float], boundary: float, *, width: int = _WIDTH
) -> list[str]:
    """Lines of text: the evidence as dots, the boundary as a dashed line.

    Args:
        seconds: since the stage began, rising.
        values: log e-value at each of them, at least one.
        boundary: the log e-value that certifies.
        width: columns of the plot itself.
    """
    low = min(0.0, *values)
    # Evidence far beyond the boundary would press all that led there into a line.
    high = max(boundary * 1.5, min(max(values), boundary * 3.0), low + 1e-9)
    span = max(seconds[-1] - seconds[0], 1e-9)

    def row(value: float) -> int:
        share = (min(max(value, low), high) - low) / (high - low)
        return (_HEIGHT - 1) - round(share * (_HEIGHT - 1))

    grid = [[" "] * width for _ in range(_HEIGHT)]
    grid[row(boundary)] = list(("- " * width)[:width])
    for at, value in zip(seconds, values, strict=True):
        grid[row(value)][round((at - seconds[0]) / span * (width - 1))] = "•"
    labels = {row(low): f"{low:8.1f}", row(high): f"{high:8.1f}", row(boundary): f"{boundary:8.1f}"}
    lines = [f"{labels.get(n, ''):>8} ┤{''.join(cells)}" for n, cells in enumerate(grid)]
    end = f"{seconds[-1]:.0f} s"
    start = f"{seconds[0]:.0f} s"
    lines.append(" " * 9 + "└" + "─" * width)
    lines.append(" " * 10 + start + end.rjust(width - len(start)))
    return lines


def save_png(
    file: Path,
    seconds: Sequence[float],
    values: Sequence[float],
    boundary: float,
    *,
    title: str,
    label: str,
) -> None:
    """Draw the same into a PNG file of 8 by 4.5 inches.

    Raises:
        OSError: the file cannot be written.
    """
    # It takes a second to import, and is wanted by this option alone; no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(seconds, values, marker=".", label=label)
    axes.axhline(boundary, color="tab:red", linestyle="--", label="boundary")
    axes.set_xlabel("seconds of log time in the stage")
    axes.set_ylabel("log e-value")
    axes.set_title(title, fontsize="medium")
    axes.legend()
    figure.savefig(file, format="png")
