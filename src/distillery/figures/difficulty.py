"""Correctly classified test images by difficulty: INFER's Figure 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distillery.figures.panel import facets, heading
from distillery.figures.style import GREY, bars, canvas, colour, legend, look, unique

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Panel

NAMES = ("difficulty",)
NOTE = "bars: images that a student gets right, mean over draws and students"
TITLES = {"width": "intervals of equal width", "quantile": "intervals of equal count"}


@look
def draw(panel: Panel) -> Figure:
    """Bars per interval of the teacher's cross entropy.

    Grey for all test images, one per row for those that its student gets right. Left intervals of
    equal width (counts logarithmic), right of equal count. Uses the values, mean over draws and
    students.
    """
    entries = panel.having("values")
    groups = facets(entries, ("dataset", "student", "ipc"))
    rows = unique(entry.row for entry in entries)
    figure, grid = canvas(heading(panel, entries, NOTE), 0.6 + 2.5 * len(groups), len(groups), 2)
    for line, (title, members) in zip(grid, groups.items(), strict=True):
        for axes, (kind, caption) in zip(line, TITLES.items(), strict=True):
            tables = {rows.index(e.row): _means(e.values, kind) for e in members}
            _draw(axes, tables)
            axes.set(
                title=f"{title}\n{caption}",
                xlabel="cross entropy of the teacher (nats)",
                ylabel="test images",
            )
        line[0].set(ylabel="test images (logarithmic)")
        line[0].set_yscale("symlog", linthresh=1)
        line[0].set_ylim(0)
    legend(
        figure, ["all test images", *rows], [GREY, *(colour(place) for place in range(len(rows)))]
    )
    return figure


def _means(values: pd.DataFrame, kind: str) -> pd.DataFrame:
    return values[values["bins"] == kind].groupby("bin")[["low", "high", "total", "correct"]].mean()


def _draw(axes: Axes, tables: dict[int, pd.DataFrame]) -> None:
    first = next(iter(tables.values()))
    heights = np.stack([table["correct"] for table in tables.values()], 1)
    axes.bar(np.arange(len(first)), first["total"], 0.9, color=GREY)
    bars(axes, heights, np.full(heights.shape, np.nan), [colour(row) for row in tables])
    edges = [*first["low"], first["high"].iloc[-1]]
    axes.set_xticks(
        np.arange(len(edges)) - 0.5, [f"{edge:.2g}" for edge in edges], fontsize=7, rotation=45
    )
