"""Accuracy against the compression ratio: INFER's Figure 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from distillery.errors import PlanError
from distillery.figures.panel import DEVIATION, facets, heading
from distillery.figures.style import curve, curve_legend, facet_canvas, look, unique

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("tradeoff",)
NOTE = "a point per ipc"


@look
def draw(panel: Panel) -> Figure:
    """A line per row over its budgets, axes of their own for each data set and student.

    Along the axis stands the compression ratio that the table states, as the paper counts it, in
    percent and logarithmic. Error bars are the table's standard deviation. Uses each entry's value
    and ratio; an entry without a ratio is left out and named.

    Raises:
        PlanError: the table states no ratio.
    """
    measured = panel.having("value")
    entries = [entry for entry in measured if entry.ratio is not None]
    if not entries:
        raise PlanError(
            f"figure '{panel.title}': the table states no compression ratio; set compression_ratio "
            "in the paper.yaml of its paper"
        )
    rows, groups = unique(entry.row for entry in entries), facets(entries)
    absent = [row for row in unique(entry.row for entry in measured) if row not in rows]
    left_out = f"no ratio is known: {', '.join(absent)}" if absent else ""
    title = heading(panel, entries, NOTE, DEVIATION, left_out)
    figure, grid = facet_canvas(title, len(groups), 2.4)
    handles: dict[str, Artist] = {}
    for axes, (name, members) in zip(grid.flat, groups.items(), strict=False):
        handles |= _draw(axes, members, rows)
        axes.set(title=name, xlabel="compression ratio (%)", ylabel="test accuracy (%)")
    curve_legend(figure, {row: handles[row] for row in rows})
    return figure


def _draw(axes: Axes, entries: list[Entry], rows: list[str]) -> dict[str, Artist]:
    handles: dict[str, Artist] = {}
    for row in unique(entry.row for entry in entries):
        mine = sorted(
            (entry.ratio, entry.value, entry.std or 0.0) for entry in entries if entry.row == row
        )
        handles[row] = curve(axes, rows.index(row), *zip(*mine, strict=True))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.grid()
    return handles
