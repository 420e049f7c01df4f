"""Accuracy over the classes seen in class-incremental learning: GIFT's Figure 2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distillery.figures.panel import facets
from distillery.figures.style import blank, canvas, curve, look, unique

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("continual",)
PER_LINE = 2


@look
def draw(panel: Panel) -> Figure:
    """A line per row over the classes seen, axes of its own for each data set, student, ipc and number of steps; error bars are
    the standard deviation (ddof 1) over repeats. Uses the values, in percent."""
    entries = panel.having("values")
    groups, rows = (
        facets(entries, ("dataset", "student", "ipc", "steps")),
        unique(entry.row for entry in entries),
    )
    lines, columns = math.ceil(len(groups) / PER_LINE), min(len(groups), PER_LINE)
    figure, grid = canvas(panel.title, 0.6 + 2.4 * lines, lines, columns)
    handles = {}
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=False):
        handles |= {entry.row: _line(axes, entry, rows.index(entry.row)) for entry in members}
        axes.set(
            title=title,
            xlabel="classes seen",
            ylabel="accuracy on the test images\nof the classes seen (%)",
        )
        axes.set_xticks(unique(seen for entry in members for seen in entry.values["classes_seen"]))
        axes.grid()
    blank(grid.flat[len(groups) :])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def _line(axes: Axes, entry: Entry, place: int) -> Artist:
    found = entry.values.groupby("classes_seen")["accuracy"].agg(["mean", "std"])
    return curve(axes, place, found.index, found["mean"], found["std"].fillna(0.0))
