"""Measured accuracies over a table's own axis: GIFT's Figures 3 and 8, by gamma."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distillery.errors import PlanError
from distillery.figures.panel import facets
from distillery.figures.style import blank, canvas, curve, look, unique

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("sweep",)
PER_LINE = 2


@look
def draw(panel: Panel) -> Figure:
    """A line per row over the values of the axis, axes of its own for each data set, student and ipc; error bars are the
    standard deviation over repeats. Uses each entry's value, in percent. Raises PlanError unless the table has one axis of its
    own and its values are numbers."""
    entries = panel.having("value")
    axis, groups = _axis(panel), facets(entries, ("dataset", "student", "ipc"))
    rows, handles = unique(entry.row for entry in entries), {}
    lines, columns = math.ceil(len(groups) / PER_LINE), min(len(groups), PER_LINE)
    figure, grid = canvas(panel.title, 0.6 + 2.4 * lines, lines, columns)
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=False):
        for row in unique(entry.row for entry in members):
            mine = sorted(
                (entry for entry in members if entry.row == row),
                key=lambda entry: entry.extra[axis],
            )
            points = zip(
                *((entry.extra[axis], entry.value, entry.std or 0.0) for entry in mine), strict=True
            )
            handles[row] = curve(axes, rows.index(row), *points)
        axes.set(title=title, xlabel=axis, ylabel="test accuracy (%)")
        axes.grid()
    blank(grid.flat[len(groups) :])
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def _axis(panel: Panel) -> str:
    def sweeps(entry: Entry) -> bool:
        return len(entry.extra) == 1 and all(
            isinstance(value, int | float) for value in entry.extra.values()
        )

    if not all(map(sweeps, panel.entries)):
        raise PlanError(
            f"figure '{panel.title}': a sweep needs one axis of the table's own, whose values are numbers"
        )
    return next(iter(panel.entries[0].extra))
