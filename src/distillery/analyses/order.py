"""How alike neighbouring classes of a poster are: PoDD's score of a class order (section 5.3, Figures 6 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from distillery.analyses.inputs import Result, fixed_generator
from distillery.components.fields import Count
from distillery.errors import PlanError
from distillery.poster.order import neighbours, score, shuffled, total

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("order",)
TRAITS = {"needs": ("distilled", "embeddings")}


@dataclass(frozen=True)
class Recipe:
    """random: orders drawn at random, to compare with."""

    random: Count = 1000


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Score of a poster's class order.

    value: 1 / sum of the distances (1 - cosine) of all neighbours. values, per class: class, row, column, distance (mean over
    its neighbours). arrays: right (rows, columns - 1) and down (rows - 1, columns), distances between neighbours, total (1,),
    their sum, random (random,), the sums of random orders, the same ones in every analysis; float64. Raises PlanError for a
    set without a class order, and for an order of other classes than the embeddings'.
    """
    if "order" not in inputs.distilled:
        raise PlanError(
            f"analysis 'order': method '{inputs.distilled.method}' has none; name a row of PoDD"
        )
    order, distances = inputs.distilled["order"][0].long().cpu(), inputs.distances.double()
    if order.flatten().sort().values.tolist() != list(range(len(distances))):
        raise PlanError(
            f"analysis 'order': the order is none of the {len(distances)} classes; make the set again"
        )
    right, down = neighbours(order, distances)
    mean = _around(right, down) / _around(torch.ones_like(right), torch.ones_like(down))
    place = [
        divmod(int((order.flatten() == label).nonzero()), order.shape[1])
        for label in range(len(distances))
    ]
    columns = {
        "class": list(inputs.classes),
        "row": [row for row, _ in place],
        "column": [column for _, column in place],
        "distance": [mean[cell].item() for cell in place],
    }
    stream = fixed_generator("order")
    chance = [
        total(shuffled(len(distances), *order.shape, stream), distances)
        for _ in range(recipe.random)
    ]
    arrays = {
        "right": right,
        "down": down,
        "total": torch.tensor([total(order, distances)]),
        "random": torch.tensor(chance),
    }
    metadata = {"total": total(order, distances), "random_mean": sum(chance) / len(chance)}
    return Result(
        score(order, distances),
        columns,
        {name: array.double() for name, array in arrays.items()},
        metadata,
    )


def _around(right: Tensor, down: Tensor) -> Tensor:
    """Sum (rows, columns) over each cell's neighbours of what lies between them."""
    return (
        pad(right, (1, 0)) + pad(right, (0, 1)) + pad(down, (0, 0, 1, 0)) + pad(down, (0, 0, 0, 1))
    )
