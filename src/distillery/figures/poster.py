"""Posters, and how patches, classes and labels lie on them: PoDD's Figures 1, 4, 5 and 9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from distillery.figures.panel import heading, names
from distillery.figures.style import HEAT, WIDTH, canvas, colour, look, pale, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from distillery.figures.panel import Entry, Panel

NAMES = ("poster",)
CLIP = 2.5  # standard deviations of whitened pixels between grey and black or white
NAMED = 20  # classes; with more, their names do not fit beside the labels
LETTER = 225.0  # font size of a letter that is as wide as a map
READABLE = 3.5  # the smallest font size that is worth printing


@look
def draw(panel: Panel) -> Figure:
    """A line per entry: the poster, the class of each pixel, and the labels of the patches.

    Where posters are whitened, their pixels stand beside them.

    On the poster are the centres of its patches and the first patch's outline. Uses the arrays, and
    the class names among the values.
    """
    entries = panel.having("arrays")
    whitened = any("restored" in entry.arrays for entry in entries)
    parts = 4 if whitened else 3
    heights = [
        max(0.45, np.divide(*entry.arrays["map"].shape)) * WIDTH / (parts + 0.4) + 0.5
        for entry in entries
    ]
    figure, grid = canvas(
        heading(panel, entries, "shown: the first draw"),
        0.4 + sum(heights),
        len(entries),
        parts,
        height_ratios=heights,
    )
    for line, entry, name in zip(grid, entries, names(entries), strict=True):
        _poster(line[0], entry, name)
        if whitened:
            _restored(line[1], entry)
        _map(line[-2], entry)
        heat = _labels(line[-1], entry)
    figure.colorbar(heat, ax=grid[:, -1], label="probability", aspect=12 * len(entries), pad=0.02)
    return figure


def _poster(axes: Axes, entry: Entry, name: str) -> None:
    poster, corners = entry.arrays["poster"], entry.arrays["corners"]
    side = int(entry.arrays["side"].item())
    _image(axes, _shown(poster))
    dot = 25 / len(corners) ** 0.5
    axes.plot(
        *(corners + (side - 1) / 2).T,
        ".",
        color="white",
        markersize=dot,
        markeredgecolor="black",
        markeredgewidth=dot / 8,
    )
    axes.add_patch(
        Rectangle(corners[0] - 0.5, side, side, fill=False, edgecolor=colour(1), linewidth=1.2)
    )
    axes.set_title(
        f"{name}\n{poster.shape[2]} x {poster.shape[1]}, {len(corners)} patches of {side}"
    )


def _restored(axes: Axes, entry: Entry) -> None:
    """The pixels of a whitened poster; of another one, which holds pixels, itself."""
    _image(axes, _shown(entry.arrays.get("restored", entry.arrays["poster"])))
    axes.set_title("not whitened" if "restored" in entry.arrays else "as it is")


def _shown(poster: np.ndarray) -> np.ndarray:
    """A poster stretched to [0, 1], grey at its mean."""
    shown = (poster - poster.mean()) / (poster.std() or 1)
    return shown.clip(-CLIP, CLIP) / (2 * CLIP) + 0.5


def _image(axes: Axes, image: np.ndarray) -> None:
    """An image (C, H, W) in [0, 1], grey where it has one channel."""
    axes.imshow(
        image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    axes.set_axis_off()


def _map(axes: Axes, entry: Entry) -> None:
    owner, order = entry.arrays["map"].astype(int), entry.arrays["order"].astype(int)
    shades = np.empty((order.size, 3))
    for (row, column), label in np.ndenumerate(order):
        shades[label] = pale(2 * row + column)  # cells that touch have different colours
    _image(axes, shades[owner].transpose(2, 0, 1))
    axes.set_title("class of each pixel")
    classes = [name.replace("_", "\n") for name in unique(entry.values["class"])]
    longest = max(len(line) for name in classes for line in name.split("\n"))
    size = min(7.0, LETTER / order.shape[1] / longest)
    for label in order.flat if size >= READABLE else ():
        y, x = (places.mean() for places in np.nonzero(owner == label))
        axes.text(x, y, classes[label], ha="center", va="center", fontsize=size)


def _labels(axes: Axes, entry: Entry) -> AxesImage:
    labels, classes = entry.arrays["labels"].T, unique(entry.values["class"])
    heat = axes.imshow(
        labels, cmap=HEAT, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest"
    )
    if len(classes) <= NAMED:
        axes.set_yticks(range(len(classes)), classes, fontsize=6)
    else:
        axes.set_ylabel("class")
    axes.set(title="labels of the patches", xlabel="patch, column by column")
    return heat
