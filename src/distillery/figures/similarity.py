"""Similarity within classes over the budget: INFER's Figure 4, left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.figures.panel import DEVIATION, facets, heading
from distillery.figures.style import curve, curve_legend, facet_canvas, look, unique

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("similarity",)


@look
def draw(panel: Panel) -> Figure:
    """A line per row over ipc (logarithmic), axes of their own for each data set and student.

    Error bars are the table's standard deviation. Uses each entry's value.
    """
    drawn = panel.having("value")
    groups, rows = facets(drawn), unique(entry.row for entry in drawn)
    title = heading(panel, drawn, DEVIATION)
    figure, grid = facet_canvas(title, len(groups), 2.4, sharey=True)
    handles: dict[str, Artist] = {}
    for axes, (title, entries) in zip(grid.flat, groups.items(), strict=False):
        handles |= _draw(axes, entries, rows)
        axes.set(title=title, xlabel="images per class (ipc)")
    for axes in grid[:, 0]:
        axes.set_ylabel("mean cosine similarity\nwithin a class")
    curve_legend(figure, handles)
    return figure


def _draw(axes: Axes, entries: list[Entry], rows: list[str]) -> dict[str, Artist]:
    handles: dict[str, Artist] = {}
    for place, row in enumerate(rows):
        mine = sorted((entry for entry in entries if entry.row == row), key=lambda entry: entry.ipc)
        if mine:
            points = ((entry.ipc, entry.value, entry.std or 0.0) for entry in mine)
            handles[row] = curve(axes, place, *zip(*points, strict=True))
    axes.set_xscale("log")
    budgets = sorted({entry.ipc for entry in entries})
    axes.set_xticks(budgets, [f"{ipc:g}" for ipc in budgets])
    axes.minorticks_off()
    axes.grid()
    return handles
