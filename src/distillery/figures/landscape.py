"""The loss around test images, student beside student: INFER's Figure 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from distillery.figures.panel import heading, names
from distillery.figures.style import HEAT, blank, canvas, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("landscape",)
PER_LINE = 4
NOTE = "shown: the first student of the first draw"
LEVELS, SHADES = 8, 4  # contour lines, and shades between two of them
SURFACES = {"surface": "mean over images", "first": "one image"}


@look
def draw(panel: Panel) -> Figure:
    """The mean surface of each entry and below it that of one image; uses the arrays.

    All surfaces of a kind are on one colour scale.
    """
    entries = panel.having("arrays")
    columns, blocks = min(len(entries), PER_LINE), math.ceil(len(entries) / PER_LINE)
    figure, grid = canvas(
        heading(panel, entries, NOTE),
        0.5 + 4.1 * blocks,
        2 * blocks,
        columns,
        sharex=True,
        sharey=True,
    )
    titles = names(entries)
    for kind, (array, caption) in enumerate(SURFACES.items()):
        lines = grid[kind * blocks : (kind + 1) * blocks]
        levels = shared_levels(entries, array)
        for axes, entry, title in zip(lines.flat, entries, titles, strict=False):
            drawn = _draw(axes, entry, array, levels)
            axes.set_title(title)
        blank(lines.flat[len(entries) :])
        for axes in lines.flat[len(entries) - columns : len(entries)]:
            axes.tick_params(labelbottom=True)
        figure.colorbar(
            drawn,
            ax=lines.ravel().tolist(),
            label=f"cross entropy (nats),\n{caption}",
            ticks=levels[::SHADES],
            aspect=20 * blocks,
            pad=0.01,
        )
    figure.supxlabel("offset along a random orthogonal direction ($L_2$, pixel units)", fontsize=8)
    figure.supylabel("offset along the input gradient ($L_2$, pixel units)", fontsize=8)
    return figure


def shared_levels(entries: Sequence[Entry], array: str) -> np.ndarray:
    """Shades from below the least to above the largest loss of all entries.

    Each SHADES-th is a round number.
    """
    low = min(entry.arrays[array].min() for entry in entries)
    high = max(entry.arrays[array].max() for entry in entries)
    lines = MaxNLocator(LEVELS).tick_values(low, high)
    return np.linspace(lines[0], lines[-1], SHADES * (len(lines) - 1) + 1)


def _draw(axes: Axes, entry: Entry, array: str, levels: np.ndarray) -> ContourSet:
    offsets, surface = entry.arrays["offsets"], entry.arrays[array]
    filled = axes.contourf(offsets, offsets, surface, levels=levels, cmap=HEAT)
    axes.contour(offsets, offsets, surface, levels=levels[::SHADES], colors="white", linewidths=0.4)
    axes.plot(0, 0, "+", color="white", markersize=6, markeredgewidth=1)
    axes.set_aspect("equal")
    return filled
