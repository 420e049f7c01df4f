"""Decision regions on a t-SNE map, student beside student: INFER's Figure 2, right."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from distillery.figures.panel import heading, names
from distillery.figures.style import blank, canvas, colour, legend, look, pale, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("boundary",)
PER_LINE = 3
NOTE = "shown: the first student of the first draw, and its % correct"


@look
def draw(panel: Panel) -> Figure:
    """Regions coloured by what the student predicts, points by their true class.

    Points that the student gets wrong have a black edge. Uses the arrays, the class names among the
    values (those of several data sets share a colour). Titles have the accuracy of the student that
    is shown, which is not the mean over students that the table has.
    """
    entries = panel.having("arrays")
    columns, lines = min(len(entries), PER_LINE), math.ceil(len(entries) / PER_LINE)
    figure, grid = canvas(
        heading(panel, entries, NOTE), 0.95 + (min(6.3 / columns, 4) + 0.15) * lines, lines, columns
    )
    for axes, entry, name in zip(grid.flat, entries, names(entries), strict=False):
        _draw(axes, entry)
        axes.set_title(f"{name}: {_correct(entry):.1f} % correct")
    blank(grid.flat[len(entries) :])
    classes = [
        " / ".join(unique(filter(None, same)))
        for same in zip_longest(*(unique(e.values["class"]) for e in entries))
    ]
    wrong = Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        color="white",
        markeredgecolor="black",
        label="misclassified",
    )
    legend(figure, classes, [colour(place) for place in range(len(classes))], wrong)
    return figure


def _correct(entry: Entry) -> float:
    """Of the points of the student that is shown, percent."""
    return float(100 * np.mean(entry.arrays["labels"] == entry.arrays["predictions"]))


def _draw(axes: Axes, entry: Entry) -> None:
    arrays = entry.arrays
    shades = ListedColormap([pale(place) for place in range(len(arrays["classes"]))])
    axes.pcolormesh(
        *arrays["grid"],
        arrays["region"],
        cmap=shades,
        vmin=-0.5,
        vmax=shades.N - 0.5,
        rasterized=True,
        shading="nearest",
    )
    wrong = arrays["labels"] != arrays["predictions"]
    for missed, edge in ((False, "white"), (True, "black")):
        x, y = arrays["points"][wrong == missed].T
        colours = [colour(label) for label in arrays["labels"][wrong == missed]]
        axes.scatter(x, y, s=9, c=colours, edgecolors=edge, linewidths=0.4 + 0.3 * missed)
    axes.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.set(xlim=np.take(arrays["grid"][0], (0, -1)), ylim=np.take(arrays["grid"][1], (0, -1)))
