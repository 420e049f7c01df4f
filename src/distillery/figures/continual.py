"""Accuracy over the classes seen in class-incremental learning: GIFT's Figure 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.figures.panel import DEVIATION, facets, heading, spread
from distillery.figures.style import curve, curve_legend, facet_canvas, look, unique

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("continual",)
NOTE = "the table has the mean over the steps, not the last point"


@look
def draw(panel: Panel) -> Figure:
    """A line per row over the classes seen.

    Each data set, student, ipc and number of steps has axes of its own; error bars are the standard
    deviation (ddof 1) over draws, or over students of one draw. Uses the values, in percent.
    """
    entries = panel.having("values")
    groups = facets(entries, ("dataset", "student", "ipc", "steps"))
    rows = unique(entry.row for entry in entries)
    figure, grid = facet_canvas(heading(panel, entries, DEVIATION, NOTE), len(groups), 2.4)
    handles: dict[str, Artist] = {}
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=False):
        handles |= {entry.row: _line(axes, entry, rows.index(entry.row)) for entry in members}
        axes.set(
            title=title,
            xlabel="classes seen",
            ylabel="accuracy on the test images\nof the classes seen (%)",
        )
        axes.set_xticks(unique(seen for entry in members for seen in entry.values["classes_seen"]))
        axes.grid()
    curve_legend(figure, handles)
    return figure


def _line(axes: Axes, entry: Entry, place: int) -> Artist:
    accuracy = spread(entry.values, "accuracy", ["classes_seen"])
    return curve(axes, place, accuracy.index, accuracy["mean"], accuracy["std"])
