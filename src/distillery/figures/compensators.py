"""Compensators as pictures, and what they do to images: INFER's Figures 6 and 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distillery.figures.panel import heading, names, network
from distillery.figures.style import blank, canvas, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distillery.figures.panel import Entry, Panel

NAMES = ("compensators",)


@look
def draw(panel: Panel) -> Figure:
    """Compensators of a few subsets, and images with and without them; a block of lines per entry.

    Left the compensators, each stretched to its own range, with their network and size; right
    images of subset 0 without and with each teacher's compensator. Uses the arrays and values.
    """
    entries = panel.having("arrays")
    lines = [len(entry.arrays["u"]) + 1 for entry in entries]
    widest = max(entry.arrays["u"].shape[1] + 1 + len(entry.arrays["natural"]) for entry in entries)
    figure, grid = canvas(
        heading(panel, entries, "shown: the first draw"),
        0.5 + (7.0 / widest + 0.22) * sum(lines),
        sum(lines),
        widest,
    )
    blank(grid.flat)
    for block, entry, name in zip(
        np.split(grid, np.cumsum(lines)[:-1]), entries, names(entries), strict=True
    ):
        _draw(block, entry, name)
    return figure


def _draw(block: np.ndarray, entry: Entry, name: str) -> None:
    u, natural, compensated = (entry.arrays[part] for part in ("u", "natural", "compensated"))
    images = block[:, u.shape[1] + 1 :]
    by_teacher = entry.values.drop_duplicates("teacher").sort_values("teacher")
    networks = by_teacher["network"].map(network)
    note = f"{name}\neach u stretched to [0, 1];\nabove it its size in pixel units"
    block[0, 0].text(0, 0.5, note, va="center", in_layout=False)
    for column, image in enumerate(natural):
        _show(images[0, column], image, title=f"class {entry.arrays['classes'][column]:.0f}")
    _side(images[0, 0], "natural")
    for j, (line, of) in enumerate(zip(block[1:], networks, strict=True)):
        _side(line[0], f"$u_{{{j + 1}}}$, {of}")
        _side(images[j + 1, 0], f"$x + u_{{{j + 1}}}$")
        for k, one in enumerate(u[j]):
            stretched = (one - one.min()) / (np.ptp(one) or 1)
            subset = f"subset {k}\n" if j == 0 else ""
            _show(line[k], stretched, f"{subset}max {np.abs(one).max():.2f}\nstd {one.std():.2f}")
        for column, image in enumerate(compensated[j]):
            _show(images[j + 1, column], image)


def _show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """An image (C, H, W) in [0, 1], grey where it has one channel."""
    axes.imshow(
        image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    axes.set_title(title, fontsize=6, pad=2)


def _side(axes: Axes, text: str) -> None:
    axes.text(-0.08, 0.5, text, transform=axes.transAxes, ha="right", va="center", rotation=90)
