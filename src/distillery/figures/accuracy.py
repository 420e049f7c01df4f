"""Measured accuracies of a table's rows as grouped bars: INFER's Figure 4, right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distillery.figures.panel import DEVIATION, facets, heading
from distillery.figures.style import bars, colour, facet_canvas, legend, look, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("accuracy",)


@look
def draw(panel: Panel) -> Figure:
    """A group of bars per ipc, a bar per row, axes of their own for each data set and student.

    Error bars are the table's standard deviation. Uses each entry's value, in percent.
    """
    drawn = panel.having("value")
    groups, rows = facets(drawn), unique(entry.row for entry in drawn)
    figure, grid = facet_canvas(heading(panel, drawn, DEVIATION), len(groups), 2.3)
    for axes, (title, entries) in zip(grid.flat, groups.items(), strict=False):
        _draw(axes, title, entries, rows)
    legend(figure, rows, [colour(place) for place in range(len(rows))])
    return figure


def _draw(axes: Axes, title: str, entries: list[Entry], rows: list[str]) -> None:
    budgets = sorted({entry.ipc for entry in entries})
    shown = sorted({rows.index(entry.row) for entry in entries})
    heights, errors = np.full((2, len(budgets), len(shown)), np.nan)
    for entry in entries:
        place = budgets.index(entry.ipc), shown.index(rows.index(entry.row))
        heights[place], errors[place] = entry.value, np.nan if entry.std is None else entry.std
    bars(axes, heights, errors, [colour(row) for row in shown], write="{:.1f}")
    axes.set(title=title, xlabel="images per class (ipc)", ylabel="test accuracy (%)")
    axes.set_xticklabels([f"{ipc:g}" for ipc in budgets])
