"""Class orders, and how alike neighbours are: PoDD's Figures 6 and 8."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from distillery.figures.panel import heading, names
from distillery.figures.style import HEAT, WIDTH, canvas, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("order",)
# Sides of a cell and of the bridge to its neighbour, in distances between cells.
CELL, BRIDGE = 0.84, 0.42
DARK = 0.55  # of the colour scale, below which text is white


@look
def draw(panel: Panel) -> Figure:
    """A block per entry: the classes in their places, with a bridge to each neighbour.

    A class is coloured by its mean distance to its neighbours, a bridge by the distance between the
    two; one colour scale for all. The title compares the sum with random orders. Uses the arrays
    and the values.
    """
    entries = panel.having("arrays")
    shapes = [(entry.arrays["right"].shape[0], entry.arrays["down"].shape[1]) for entry in entries]
    heights = [max(0.6, min(1.0, rows / columns) * 0.85 * WIDTH) + 0.45 for rows, columns in shapes]
    title = heading(panel, entries, "shown: the first draw")
    figure, grid = canvas(title, 0.4 + sum(heights), len(entries), height_ratios=heights)
    distances = np.concatenate(
        [entry.arrays[part].ravel() for entry in entries for part in ("right", "down")]
    )
    scale = Normalize(distances.min(), distances.max())
    for axes, entry, name, shape in zip(grid[:, 0], entries, names(entries), shapes, strict=True):
        bridges = _bridges(axes, entry.arrays, scale)
        _cells(axes, entry, scale, shape)
        axes.set_title(f"{name}: {_compared(entry)}")
    figure.colorbar(
        bridges, ax=grid[:, 0], label="distance of neighbours (1 - cosine)", shrink=0.9, pad=0.02
    )
    return figure


def _compared(entry: Entry) -> str:
    total, random = entry.arrays["total"].item(), entry.arrays["random"]
    sums = f"sum {random.mean():.3f} ± {random.std():.3f}"
    return f"sum {total:.3f}, score {1 / total:.3f}; random orders: {sums}"


def _bridges(axes: Axes, arrays: dict[str, np.ndarray], scale: Normalize) -> ScalarMappable:
    places, distances = [], []
    for part, (x, y) in (("right", (0.5, 0)), ("down", (0, 0.5))):
        rows, columns = np.indices(arrays[part].shape)
        places.append(np.stack([columns + x, rows + y], -1).reshape(-1, 2))
        distances.append(arrays[part].ravel())
    centres, every = np.concatenate(places), np.concatenate(distances)
    for (x, y), shade in zip(centres, _shades(every, scale), strict=True):
        corner = (x - BRIDGE / 2, y - BRIDGE / 2)
        axes.add_patch(Rectangle(corner, BRIDGE, BRIDGE, color=shade, linewidth=0))
    # points of no size: the colour bar needs something that has the scale
    x, y = centres.T
    return axes.scatter(x, y, c=every, cmap=HEAT, norm=scale, s=0)


def _cells(axes: Axes, entry: Entry, scale: Normalize, shape: tuple[int, int]) -> None:
    rows, columns = shape
    values = entry.values.drop_duplicates("class")
    mean = entry.values.groupby("class")["distance"].mean()
    size = min(7.0, 52 / columns)
    for name, row, column in values[["class", "row", "column"]].itertuples(index=False):
        corner = (column - CELL / 2, row - CELL / 2)
        shade = _shades(mean[name], scale)
        axes.add_patch(Rectangle(corner, CELL, CELL, color=shade, linewidth=0))
        text_colour = "white" if scale(mean[name]) < DARK else "black"
        axes.text(
            column,
            row,
            _folded(name),
            ha="center",
            va="center",
            fontsize=size,
            color=text_colour,
        )
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    axes.set_axis_off()


def _shades(distances: Any, scale: Normalize) -> Any:
    """The colour of a distance, or the colours (N, 4) of an array (N,) of them."""
    return colormaps[HEAT](scale(distances))


def _folded(name: str) -> str:
    return "\n".join(textwrap.wrap(name.replace("_", " "), 9, break_long_words=False))
