"""Measured accuracies over a table's own axis: GIFT's Figures 3 and 8, by gamma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.errors import PlanError
from distillery.figures.panel import DEVIATION, facets, heading
from distillery.figures.style import curve, curve_legend, facet_canvas, look, unique

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("sweep",)


@look
def draw(panel: Panel) -> Figure:
    """A line per row over the values of the axis, axes of their own for each setting.

    A setting is a data set, student and ipc. Error bars are the table's standard
    deviation. Uses each entry's value, in percent.

    Raises:
        PlanError: the table has not one axis of its own, or its values are no numbers.
    """
    entries = panel.having("value")
    axis, groups = _axis(panel), facets(entries, ("dataset", "student", "ipc"))
    rows = unique(entry.row for entry in entries)
    figure, grid = facet_canvas(heading(panel, entries, DEVIATION), len(groups), 2.4)
    handles: dict[str, Artist] = {}
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=False):
        for row in unique(entry.row for entry in members):
            mine = sorted(
                (entry for entry in members if entry.row == row),
                key=lambda entry: entry.extra[axis],
            )
            points = ((entry.extra[axis], entry.value, entry.std or 0.0) for entry in mine)
            handles[row] = curve(axes, rows.index(row), *zip(*points, strict=True))
        axes.set(title=title, xlabel=axis, ylabel="test accuracy (%)")
        axes.grid()
    curve_legend(figure, handles)
    return figure


def _axis(panel: Panel) -> str:
    def sweeps(entry: Entry) -> bool:
        return len(entry.extra) == 1 and all(
            isinstance(value, int | float) for value in entry.extra.values()
        )

    if not all(map(sweeps, panel.entries)):
        raise PlanError(
            f"figure '{panel.title}': a sweep needs one axis of the table's own, whose values are "
            "numbers"
        )
    return next(iter(panel.entries[0].extra))
