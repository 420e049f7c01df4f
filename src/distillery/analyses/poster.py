"""What a poster is made of: pixels, cells of classes, labels of patches (PoDD, Figures 1, 4, 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillery.analyses.inputs import Result, needed
from distillery.errors import PlanError
from distillery.poster import geometry
from distillery.poster.geometry import Grid, class_grid
from distillery.poster.layout import PosterLayout, unfolding

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.analyses.inputs import AnalysisInputs
    from distillery.sets.whitening import Whitening
    from distillery.store.job import Job

NAMES = ("poster",)
TRAITS = {"needs": ("distilled",), "of": "poster"}


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """How much of a poster each class has.

    Posters of one class each lie side by side, in label order, as one.

    Returns:
        value: pixels of the poster.
        values, a row per class: class, pixels (of its cell), mass (sum of its probability over the
        patches' labels), patches (that it is the likeliest class of).
        arrays: poster (C, H, W) float32 as stored; restored (C, H, W) float32, of a whitened one
        (`restored`); map (H, W) int64, the class of each pixel; order (rows, columns) int64;
        labels (p, n) float32 of the patches; corners (p, 2) int64, left and top of each patch;
        side (1,) int64 of a patch.

    Raises:
        PlanError: the set has no poster.
    """
    distilled = needed(inputs.distilled, "distilled").to("cpu")
    if "poster" not in distilled:
        raise PlanError(
            f"analysis 'poster': method '{distilled.method}' has none; name a row of PoDD"
        )
    layout, count = PosterLayout.stored(distilled), len(inputs.classes)
    posters, orders = distilled["poster"], distilled["order"].long()
    _, patches = unfolding(layout, orders, count, "cpu")(distilled.tensors)
    grid = Grid(1, 1) if len(posters) == 1 else class_grid(count)
    owner = _side_by_side(torch.stack([_owner(order, layout) for order in orders]), grid)
    values = {
        "class": list(inputs.classes),
        "pixels": owner.flatten().bincount(minlength=count).tolist(),
        "mass": patches.sum(0).tolist(),
        "patches": patches.argmax(1).bincount(minlength=count).tolist(),
    }
    arrays = {
        "poster": _side_by_side(posters, grid),
        "map": owner,
        "order": orders[0] if grid.count == 1 else torch.arange(count).view(grid.rows, -1),
        "labels": patches,
        "corners": _places(layout, grid),
        "side": torch.tensor([layout.side]),
    }
    if inputs.whitening:
        pixels = torch.stack([restored(poster, layout, inputs.whitening) for poster in posters])
        arrays["restored"] = _side_by_side(pixels, grid)
    return Result(owner.numel(), values, arrays)


def restored(poster: Tensor, layout: PosterLayout, whitening: Whitening) -> Tensor:
    """A whitened poster (C, H, W) as pixels, for pictures: the mean of its patches' pixels.

    Whitening is a map of whole images, hence each patch is restored (`Whitening.restore`), and a
    pixel is the mean over the patches that hold it, 0 where none does.
    """
    index = layout.index
    patches = whitening.restore(geometry.cut(poster, index).to(whitening.matrix.device)).cpu()
    sums, counts = torch.zeros(2, *poster.flatten(1).shape)
    for patch, places in zip(patches.flatten(2), index, strict=True):
        sums[:, places] += patch
        counts[:, places] += 1
    return (sums / counts.clamp(min=1)).view(poster.shape)


def _owner(order: Tensor, layout: PosterLayout) -> Tensor:
    """The class (H, W) of each pixel of a poster."""
    rows, columns = (
        torch.arange(n) * cells // n
        for n, cells in zip((layout.height, layout.width), order.shape, strict=True)
    )
    return order[rows[:, None], columns]


def _side_by_side(posters: Tensor, grid: Grid) -> Tensor:
    """Posters (B, ..., H, W), row by row on a grid, as one (..., rows H, columns W)."""
    rows = [torch.cat(list(row), -1) for row in posters.split(grid.columns)]
    return torch.cat(rows, -2)


def _places(layout: PosterLayout, grid: Grid) -> Tensor:
    """Left and top (p, 2) of the patches of all posters, one after another."""
    width, height = layout.width, layout.height
    corners = geometry.corners(width, height, layout.side, layout.patches, layout.cyclic)
    rows = torch.arange(grid.rows)
    shifts = torch.cartesian_prod(rows * height, torch.arange(grid.columns) * width).flip(1)
    return (shifts[:, None] + corners).flatten(0, 1)
