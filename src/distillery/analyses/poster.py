"""What a poster is made of: its pixels, where its classes lie, and what its patches are labelled (PoDD, Figures 1 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.analyse.subject import Result
from distillery.errors import PlanError
from distillery.poster import labels
from distillery.poster.geometry import Grid, corners

if TYPE_CHECKING:
    from distillery.analyse.subject import Subject
    from distillery.job import Job

NAMES = ("poster",)
NEEDS = ("distilled",)


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def analyse(subject: Subject, recipe: Recipe, job: Job) -> Result:
    """How much of a poster each class has.

    value: pixels of the poster. values, per class: class, pixels (of its cell), mass (sum of its probability over the
    patches' labels), patches (that it is the likeliest class of). arrays: poster (C, H, W) float32 as stored, map (H, W) int64,
    the class of each pixel, order (rows, columns) int64, labels (p, n) float32 of the patches, corners (p, 2) int64, left and
    top of each patch, side (1,) int64 of a patch. Raises PlanError for a set without a poster.
    """
    parts = {name: part.cpu() for name, part in subject.distilled.parts.items()}
    if "poster" not in parts:
        raise PlanError(f"analysis 'poster': method '{subject.distilled.method}' has none; name a row of PoDD")
    poster, order = parts["poster"].float(), parts["order"].long()
    grid, cyclic, side = Grid(*parts["grid"].tolist()), bool(parts.get("cyclic", False)), subject.train.shape[-1]
    height, width = poster.shape[1:]
    patches = _labels(parts, order, (width, height, side), grid, cyclic)
    rows, columns = (torch.arange(n) * cells // n for n, cells in zip((height, width), order.shape, strict=True))
    owner = order[rows[:, None], columns]
    count = len(subject.classes)
    values = {
        "class": list(subject.classes),
        "pixels": owner.flatten().bincount(minlength=count).tolist(),
        "mass": patches.sum(0).tolist(),
        "patches": patches.argmax(1).bincount(minlength=count).tolist(),
    }
    arrays = {"poster": poster, "map": owner, "order": order, "labels": patches}
    arrays |= {"corners": corners(width, height, side, grid, cyclic), "side": torch.tensor([side])}
    return Result(width * height, values, arrays)


def _labels(parts: dict[str, Tensor], order: Tensor, size: tuple[int, int, int], grid: Grid, cyclic: bool) -> Tensor:
    """Labels (p, n) of the patches, learned where the set holds any."""
    classes = Grid(order.shape[1], order.shape[0])
    if "soft" not in parts:
        return labels.fixed(labels.weights(*size, classes, grid, cyclic), order)
    refine = parts["soft"].shape[0] // order.shape[0]
    return labels.learned(labels.weights(*size, classes, grid, cyclic, refine), parts["soft"].float())
