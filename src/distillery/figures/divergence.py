"""How far static labels are from dynamic ones: INFER's Figure 9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distillery.figures.panel import facets, heading
from distillery.figures.style import bars, canvas, colour, legend, look, unique

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Panel

NAMES = ("divergence",)
NOTE = "error bars: standard error over mixes"
SIDES = {False: "not augmented", True: "augmented"}


@look
def draw(panel: Panel) -> Figure:
    """KL between dynamic and static labels of mixed images.

    Axes per temperature, bars per row, with and without augmentation on the dynamic side; error
    bars are the standard error over mixes. Uses the values, mean over draws and students.
    """
    entries = panel.having("values")
    groups = facets(entries, ("dataset", "student", "ipc"))
    rows = unique(entry.row for entry in entries)
    temperatures = unique(t for entry in entries for t in entry.values["temperature"])
    figure, grid = canvas(
        heading(panel, entries, NOTE), 0.6 + 2.6 * len(groups), len(groups), len(temperatures)
    )
    for line, (title, members) in zip(grid, groups.items(), strict=True):
        for axes, temperature in zip(line, temperatures, strict=True):
            _draw(axes, {rows.index(e.row): _means(e.values, temperature) for e in members})
            axes.set_title(f"{title}\nT = {temperature:g}")
        line[0].set_ylabel("KL(dynamic ‖ static) (nats)")
    for axes in grid[-1]:
        axes.set_xlabel("images behind the dynamic labels")
    legend(figure, rows, [colour(place) for place in range(len(rows))])
    return figure


def _means(values: pd.DataFrame, temperature: float) -> pd.DataFrame:
    return (
        values[values["temperature"] == temperature]
        .groupby("augmented")[["kl", "standard_error"]]
        .mean()
    )


def _draw(axes: Axes, tables: dict[int, pd.DataFrame]) -> None:
    sides = sorted({side for table in tables.values() for side in table.index})
    columns = ("kl", "standard_error")
    heights, errors = (
        np.stack([table.reindex(sides)[name] for table in tables.values()], 1) for name in columns
    )
    bars(axes, heights, errors, [colour(row) for row in tables], write="{:.2g}")
    axes.set_xticklabels([SIDES[side] for side in sides])
