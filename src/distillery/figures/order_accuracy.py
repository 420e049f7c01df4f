"""Accuracy against the score of the class order: PoDD, section 5.3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from distillery.figures.panel import DEVIATION, facets, heading, names, spread
from distillery.figures.style import MARKERS, canvas, colour, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distillery.figures.panel import Panel

NAMES = ("order-accuracy",)


@look
def draw(panel: Panel) -> Figure:
    """A point per class order at its score and mean accuracy, in percent; uses the values.

    Each row, posters learned for so long, has axes of its own. The first entry is the order of the
    method and is named. Error bars are the standard deviation (ddof 1) over draws, or over students
    of one draw. The title has the correlation over the orders and its 95 % interval.
    """
    entries = panel.having("values")
    rows = dict.fromkeys(entry.row for entry in entries)
    groups = {
        ", ".join([row] * (len(rows) > 1) + [title]): members
        for row in rows
        for title, members in facets(
            [entry for entry in entries if entry.row == row], ("dataset", "student", "ipc")
        ).items()
    }
    title = heading(panel, entries, DEVIATION)
    figure, grid = canvas(title, 0.6 + 2.6 * len(groups), len(groups))
    for axes, (title, members) in zip(grid.flat, groups.items(), strict=True):
        scores, accuracies = (
            [entry.values[part].mean() for entry in members] for part in ("score", "accuracy")
        )
        for place, (x, y, entry, name) in enumerate(
            zip(scores, accuracies, members, names(members), strict=True)
        ):
            of_the_method = place == 0
            (bar,) = spread(entry.values, "accuracy")["std"]
            axes.errorbar(
                [x],
                [y],
                [bar],
                elinewidth=0.8,
                color=colour(1 if of_the_method else 0),
                marker=MARKERS[1 if of_the_method else 0],
                linestyle="",
            )
            if of_the_method:
                axes.annotate(name, (x, y), xytext=(-6, 4), textcoords="offset points", ha="right")
        relation = correlation(scores, accuracies, panel.printed)
        axes.set(title=f"{title}: {relation}", ylabel="test accuracy (%)")
        axes.set_xlabel("score of the order, 1 / sum of the distances of neighbours")
        axes.grid()
    return figure


def correlation(
    scores: Sequence[float], accuracies: Sequence[float], printed: Mapping[str, float]
) -> str:
    """Pearson's r of two series in words, with Fisher's 95 % interval.

    Args:
        scores: of the class orders.
        accuracies: of the class orders, percent.
        printed: the paper's `correlation` and over how many `orders`; nothing where it has none.

    Returns:
        The number of orders alone where there are fewer than four, or one side does not vary.
    """
    if len(scores) < 4 or min(np.std(scores), np.std(accuracies)) == 0:
        return f"{len(scores)} orders"
    r = float(np.corrcoef(scores, accuracies)[0, 1])
    low, high = (
        math.tanh(math.atanh(r) + side * 1.96 / math.sqrt(len(scores) - 3)) for side in (-1, 1)
    )
    papers = (
        "; the paper's is {correlation:g} over {orders:g}".format_map(printed) if printed else ""
    )
    return f"r = {r:.2f} ({low:.2f} to {high:.2f}) over {len(scores)} orders{papers}"
