"""Accuracy against meta-steps: how fast a set is learned (no figure of a paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.figures.panel import DEVIATION, facets, heading, names, spread
from distillery.figures.style import MARKERS, canvas, colour, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("convergence",)
NOTE = "students of the curve alone: its last point is not the value of an accuracy table"


@look
def draw(panel: Panel) -> Figure:
    """A line per row and ipc over the meta-steps, axes of their own for each data set and student.

    Error bars are the standard deviation (ddof 1) over draws, or over
    students of one draw. Uses the values, in percent.
    """
    drawn = panel.having("values")
    groups = facets(drawn)
    figure, grid = canvas(
        heading(panel, drawn, DEVIATION, NOTE), 0.6 + 2.6 * len(groups), len(groups)
    )
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=True):
        for place, (entry, name) in enumerate(zip(members, names(members), strict=True)):
            _line(axes, entry, name, place)
        axes.set(title=title, xlabel="meta-steps", ylabel="test accuracy (%)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.grid()
    return figure


def _line(axes: Axes, entry: Entry, name: str, place: int) -> None:
    accuracy = spread(entry.values, "accuracy", ["meta_step"])
    axes.errorbar(
        accuracy.index,
        accuracy["mean"],
        accuracy["std"],
        label=name,
        color=colour(place),
        marker=MARKERS[place % len(MARKERS)],
        elinewidth=0.8,
    )
