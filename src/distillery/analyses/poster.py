"""What a poster is made of: pixels, cells of classes, labels of patches (PoDD, Figures 1, 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillery.analyses.inputs import Result, needed
from distillery.errors import PlanError
from distillery.poster.geometry import corners
from distillery.poster.layout import PosterLayout, unfolding

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("poster",)
TRAITS = {"needs": ("distilled",), "of": "poster"}


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """How much of a poster each class has.

    Returns:
        value: pixels of the poster.
        values, a row per class: class, pixels (of its cell), mass (sum of its probability over the
        patches' labels), patches (that it is the likeliest class of).
        arrays: poster (C, H, W) float32 as stored; map (H, W) int64, the class of each pixel;
        order (rows, columns) int64; labels (p, n) float32 of the patches; corners (p, 2) int64,
        left and top of each patch; side (1,) int64 of a patch.

    Raises:
        PlanError: the set has no poster, or several.
    """
    distilled = needed(inputs.distilled, "distilled").to("cpu")
    if "poster" not in distilled:
        raise PlanError(
            f"analysis 'poster': method '{distilled.method}' has none; name a row of PoDD"
        )
    if len(distilled["poster"]) > 1:
        raise PlanError(
            "analysis 'poster': draws one poster for all classes; this set has one for each"
        )
    poster, order = distilled["poster"][0], distilled["order"][0].long()
    layout = PosterLayout.stored(distilled)
    height, width, count = layout.height, layout.width, len(inputs.classes)
    _, patches = unfolding(layout, order[None], count, "cpu")(distilled.tensors)
    rows, columns = (
        torch.arange(n) * cells // n for n, cells in zip((height, width), order.shape, strict=True)
    )
    owner = order[rows[:, None], columns]
    values = {
        "class": list(inputs.classes),
        "pixels": owner.flatten().bincount(minlength=count).tolist(),
        "mass": patches.sum(0).tolist(),
        "patches": patches.argmax(1).bincount(minlength=count).tolist(),
    }
    arrays = {"poster": poster, "map": owner, "order": order, "labels": patches}
    places = corners(width, height, layout.side, layout.patches, layout.cyclic)
    arrays |= {"corners": places, "side": torch.tensor([layout.side])}
    return Result(width * height, values, arrays)
