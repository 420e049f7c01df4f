"""Similarity within classes over the budget: INFER's Figure 4, left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distillery.figures.panel import facets
from distillery.figures.style import blank, canvas, curve, look, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("similarity",)
PER_LINE = 2


@look
def draw(panel: Panel) -> Figure:
    """A line per row over ipc (logarithmic), axes of its own for each data set and student; error bars are the standard
    deviation over repeats. Uses each entry's value."""
    groups = facets(panel.having("value"))
    rows = unique(entry.row for entry in panel.having("value"))
    lines, columns = math.ceil(len(groups) / PER_LINE), min(len(groups), PER_LINE)
    figure, grid = canvas(panel.title, 0.6 + 2.4 * lines, lines, columns, sharey=True)
    handles = {}
    for axes, (title, entries) in zip(grid.flat, groups.items(), strict=False):
        handles |= _draw(axes, entries, rows)
        axes.set(title=title, xlabel="images per class (ipc)")
    for axes in grid[:, 0]:
        axes.set_ylabel("mean cosine similarity\nwithin a class")
    blank(grid.flat[len(groups) :])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(rows), 4))
    return figure


def _draw(axes: Axes, entries: list[Entry], rows: list[str]) -> dict[str, object]:
    handles = {}
    for place, row in enumerate(rows):
        mine = sorted((entry for entry in entries if entry.row == row), key=lambda entry: entry.ipc)
        if mine:
            budgets, heights, errors = zip(
                *((entry.ipc, entry.value, entry.std or 0.0) for entry in mine), strict=True
            )
            handles[row] = curve(axes, place, budgets, heights, errors)
    axes.set_xscale("log")
    budgets = sorted({entry.ipc for entry in entries})
    axes.set_xticks(budgets, [f"{ipc:g}" for ipc in budgets])
    axes.minorticks_off()
    axes.grid()
    return handles
