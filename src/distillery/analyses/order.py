"""How alike neighbouring classes of a poster are: PoDD's score of a class order.

Section 5.3, Figures 6 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from distillery.analyses.inputs import Result, fixed_generator, needed
from distillery.components.fields import Count
from distillery.errors import PlanError
from distillery.poster.order import neighbours, random_order, score, total_distance

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("order",)
TRAITS = {"needs": ("distilled", "embeddings"), "of": "poster"}


@dataclass(frozen=True)
class Recipe:
    """PoDD, section 5.3.

    Attributes:
        random: orders drawn at random, to compare with.
    """

    random: Count = 1000


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Score of a poster's class order; distances are 1 - cosine.

    Returns:
        value: 1 / sum of the distances of all neighbours.
        values, a row per class: class, row, column, distance (mean over its neighbours).
        arrays, float64: right (rows, columns - 1) and down (rows - 1, columns), distances between
        neighbours; total (1,), their sum; random (random,), the sums of random orders, the same
        ones in every analysis.
        metadata: total, random_mean.

    Raises:
        PlanError: the set has no class order, or one of other classes than the embeddings'.
    """
    distilled = needed(inputs.distilled, "distilled")
    distances = needed(inputs.distances, "embeddings").double()
    if "order" not in distilled:
        raise PlanError(
            f"analysis 'order': method '{distilled.method}' has none; name a row of PoDD"
        )
    order = distilled["order"][0].long().cpu()
    if order.flatten().sort().values.tolist() != list(range(len(distances))):
        raise PlanError(
            f"analysis 'order': the order is none of the {len(distances)} classes; make the set "
            "again"
        )
    right, down = neighbours(order, distances)
    count = _sum_over_neighbours(torch.ones_like(right), torch.ones_like(down))
    mean = _sum_over_neighbours(right, down) / count
    rows, columns = order.shape
    places = [
        divmod(int((order.flatten() == label).nonzero()), columns)
        for label in range(len(distances))
    ]
    values: dict[str, list[Any]] = {
        "class": list(inputs.classes),
        "row": [row for row, _ in places],
        "column": [column for _, column in places],
        "distance": [mean[place].item() for place in places],
    }
    stream = fixed_generator("order")
    random_totals = [
        total_distance(random_order(len(distances), rows, columns, stream), distances)
        for _ in range(recipe.random)
    ]
    arrays = {
        "right": right.double(),
        "down": down.double(),
        "total": torch.tensor([total_distance(order, distances)]).double(),
        "random": torch.tensor(random_totals).double(),
    }
    random_mean = sum(random_totals) / len(random_totals)
    metadata = {"total": total_distance(order, distances), "random_mean": random_mean}
    return Result(score(order, distances), values, arrays, metadata)


def _sum_over_neighbours(right: Tensor, down: Tensor) -> Tensor:
    """The sum (rows, columns), over the neighbours of each cell, of what lies between the two."""
    # each padding shifts the values between two cells onto one of the cells
    sideways = pad(right, (1, 0)) + pad(right, (0, 1))
    return sideways + pad(down, (0, 0, 1, 0)) + pad(down, (0, 0, 0, 1))
