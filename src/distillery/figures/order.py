"""Class orders, and how alike neighbours are: PoDD's Figures 6 and 8."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from distillery.figures.panel import names
from distillery.figures.style import HEAT, WIDTH, canvas, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("order",)
CELL, BRIDGE = (
    0.84,
    0.42,
)  # sides of a cell and of the bridge to its neighbour, in distances between cells
DARK = 0.55  # of the colour scale, below which text is white


@look
def draw(panel: Panel) -> Figure:
    """A block per entry: the classes in their places, each coloured by its mean distance to its neighbours, with a bridge to
    each neighbour coloured by the distance between the two; one colour scale for all. The title compares the sum with
    random orders. Uses the arrays and the values."""
    entries = panel.having("arrays")
    shapes = [(entry.arrays["right"].shape[0], entry.arrays["down"].shape[1]) for entry in entries]
    heights = [max(0.6, min(1.0, rows / columns) * 0.85 * WIDTH) + 0.45 for rows, columns in shapes]
    figure, grid = canvas(panel.title, 0.4 + sum(heights), len(entries), height_ratios=heights)
    every = np.concatenate(
        [entry.arrays[part].ravel() for entry in entries for part in ("right", "down")]
    )
    scale = Normalize(every.min(), every.max())
    for axes, entry, name, shape in zip(grid[:, 0], entries, names(entries), shapes, strict=True):
        bridges = _bridges(axes, entry.arrays, scale)
        _cells(axes, entry, scale, shape)
        axes.set_title(f"{name}: {_compared(entry)}")
    figure.colorbar(
        bridges, ax=grid[:, 0], label="distance of neighbours (1 - cosine)", shrink=0.9, pad=0.02
    )
    return figure


def _compared(entry: Entry) -> str:
    total, chance = entry.arrays["total"].item(), entry.arrays["random"]
    return f"sum {total:.3f}, score {1 / total:.3f}; random orders: sum {chance.mean():.3f} ± {chance.std():.3f}"


def _bridges(axes: Axes, arrays: dict[str, np.ndarray], scale: Normalize) -> ScalarMappable:
    places, distances = [], []
    for part, (x, y) in (("right", (0.5, 0)), ("down", (0, 0.5))):
        rows, columns = np.indices(arrays[part].shape)
        places.append(np.stack([columns + x, rows + y], -1).reshape(-1, 2))
        distances.append(arrays[part].ravel())
    centres = np.concatenate(places)
    for centre, shade in zip(centres, _shades(np.concatenate(distances), scale), strict=True):
        axes.add_patch(Rectangle(centre - BRIDGE / 2, BRIDGE, BRIDGE, color=shade, linewidth=0))
    return axes.scatter(*centres.T, c=np.concatenate(distances), cmap=HEAT, norm=scale, s=0)


def _cells(axes: Axes, entry: Entry, scale: Normalize, shape: tuple[int, int]) -> None:
    rows, columns = shape
    values = entry.values.drop_duplicates("class")
    mean = entry.values.groupby("class")["distance"].mean()
    size = min(7.0, 52 / columns)
    for name, row, column in values[["class", "row", "column"]].itertuples(index=False):
        corner = np.array([column, row]) - CELL / 2
        share = scale(mean[name])
        axes.add_patch(Rectangle(corner, CELL, CELL, color=_shades(mean[name], scale), linewidth=0))
        text = {
            "ha": "center",
            "va": "center",
            "fontsize": size,
            "color": "white" if share < DARK else "black",
        }
        axes.text(column, row, _folded(name), **text)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    axes.set_axis_off()


def _shades(distances: np.ndarray | float, scale: Normalize) -> np.ndarray:
    return colormaps[HEAT](scale(distances))


def _folded(name: str) -> str:
    return "\n".join(textwrap.wrap(name.replace("_", " "), 9, break_long_words=False))
