"""How alike the instances of a class are: INFER's feature duplication (Figure 4, left)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distillery.analyses.inputs import BATCH, Result
from distillery.errors import BudgetError, PlanError
from distillery.nets.features import penultimate

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job

NAMES = ("similarity",)
TRAITS = {"needs": ("distilled", "teachers")}


@dataclass(frozen=True)
class Recipe:
    """teachers: network names, the first one's penultimate features count. space: those features, or the normalised pixels
    (paper silent). instances: all, or of an INFER set the compensated ones alone (u != 0); those that share an image or a
    compensator are correlated.
    """

    teachers: tuple[str, ...]
    space: Literal["features", "pixels"] = "features"
    instances: Literal["all", "compensated"] = "all"


@torch.no_grad()
def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Cosine similarity, in [-1, 1], over unordered pairs of clean instances of a class: mean over pairs, then over classes.

    values: class, instances, similarity. Raises BudgetError when a class has fewer than two instances, PlanError when
    compensated instances are asked of a set that has no compensators.
    """
    samples, first = inputs.instances(job.device), _first(inputs.distilled, recipe)
    describe = (
        partial(penultimate, inputs.teachers[0].model)
        if recipe.space == "features"
        else (lambda images: images)
    )
    counts, found = [], []
    for label, name in enumerate(job.progress(inputs.classes, "similarity")):
        members = (samples.labels == label).nonzero().flatten()
        members = members[members >= first]
        if len(members) < 2:
            raise BudgetError(
                f"class '{name}' has {len(members)} instances, similarity needs pairs: ask for a larger ipc"
            )
        described = (
            describe(samples.normalise(samples.take(part))) for part in members.split(BATCH)
        )
        found.append(mean_cosine(described, len(members)))
        counts.append(len(members))
    values = {"class": list(inputs.classes), "instances": counts, "similarity": found}
    return Result(
        sum(found) / len(found),
        values,
        metadata={"space": recipe.space, "instances": recipe.instances},
    )


def mean_cosine(vectors: Iterable[Tensor], count: int) -> float:
    """Mean cosine over the unordered pairs of `count` >= 2 vectors, which come in batches (B, ...) of any float type.

    With unit vectors v: 2 sum_{i<j} v_i v_j = |sum v|^2 - sum |v|^2, so that no pair is ever formed. A zero vector has
    cosine 0 with all others.
    """
    total, squares = 0.0, 0.0
    for batch in vectors:
        unit = normalize(batch.flatten(1).double())
        total, squares = total + unit.sum(0), squares + unit.square().sum()
    return ((total.square().sum() - squares) / (count * (count - 1))).item()


def _first(distilled: DistilledSet, recipe: Recipe) -> int:
    """Index of the first instance that counts: INFER's natural ones come before the compensated."""
    if recipe.instances == "all":
        return 0
    if "compensators" not in distilled:
        raise PlanError(
            f"similarity of compensated instances: method '{distilled.method}' has none; use instances: all"
        )
    return distilled["natural"].shape[:2].numel() if distilled.layout["natural_instances"] else 0
