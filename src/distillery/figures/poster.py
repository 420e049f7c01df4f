"""Posters, and how patches, classes and labels lie on them: PoDD's Figures 1, 4 and 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from distillery.figures.panel import names
from distillery.figures.style import HEAT, WIDTH, canvas, colour, look, pale, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("poster",)
CLIP = 2.5  # standard deviations of whitened pixels between grey and black or white
NAMED = 10  # classes side by side; with more, their names would be unreadable


@look
def draw(panel: Panel) -> Figure:
    """A line per entry: the poster with the centres of its patches and the first patch's outline, the class of each pixel, and
    the labels of the patches. Uses the arrays, and the class names among the values."""
    entries = panel.having("arrays")
    heights = [max(0.5, np.divide(*entry.arrays["map"].shape)) * WIDTH / 3.4 + 0.5 for entry in entries]
    figure, grid = canvas(panel.title, 0.4 + sum(heights), len(entries), 3, height_ratios=heights)
    for line, entry, name in zip(grid, entries, names(entries), strict=True):
        _poster(line[0], entry, name)
        _map(line[1], entry)
        heat = _labels(line[2], entry)
    figure.colorbar(heat, ax=grid[:, 2], label="probability", aspect=12 * len(entries), pad=0.02)
    return figure


def _poster(axes: Axes, entry: Entry, name: str) -> None:
    poster, corners, side = entry.arrays["poster"], entry.arrays["corners"], int(entry.arrays["side"].item())
    shown = (poster - poster.mean()) / (poster.std() or 1)
    _image(axes, shown.clip(-CLIP, CLIP) / (2 * CLIP) + 0.5)
    axes.plot(*(corners + (side - 1) / 2).T, ".", color="white", markersize=2.5, markeredgecolor="black", markeredgewidth=0.3)
    axes.add_patch(Rectangle(corners[0] - 0.5, side, side, fill=False, edgecolor=colour(1), linewidth=1.2))
    axes.set_title(f"{name}\n{poster.shape[2]} x {poster.shape[1]}, {len(corners)} patches of {side}")


def _image(axes: Axes, image: np.ndarray) -> None:
    """An image (C, H, W) in [0, 1], grey where it has one channel."""
    axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _map(axes: Axes, entry: Entry) -> None:
    owner, order = entry.arrays["map"].astype(int), entry.arrays["order"].astype(int)
    classes = unique(entry.values["class"])
    _image(axes, np.array([pale(label) for label in range(len(classes))])[owner].transpose(2, 0, 1))
    axes.set_title("class of each pixel")
    if order.shape[1] <= NAMED:
        size = min(7.0, 36 / order.shape[1])
        for label in order.flat:
            y, x = (places.mean() for places in np.nonzero(owner == label))
            axes.text(x, y, classes[label].replace("_", "\n"), ha="center", va="center", fontsize=size)


def _labels(axes: Axes, entry: Entry) -> object:
    labels = entry.arrays["labels"].T
    heat = axes.imshow(labels, cmap=HEAT, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    classes = unique(entry.values["class"])
    if len(classes) <= NAMED:
        axes.set_yticks(range(len(classes)), classes, fontsize=6)
    else:
        axes.set_ylabel("class")
    axes.set(title="labels of the patches", xlabel="patch, column by column")
    return heat
