"""How alike the instances of a class are: INFER's feature duplication (Figure 4, left)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distillery.analyses.inputs import BATCH, Result, columns, needed
from distillery.errors import BudgetError, PlanError
from distillery.nets.features import penultimate
from distillery.store.checkpoint import gathered

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job

NAMES = ("similarity",)
TRAITS = {"needs": ("distilled", "teachers")}
COLUMNS = ("class", "instances", "similarity")


@dataclass(frozen=True)
class Recipe:
    """INFER, Figure 4, left.

    Attributes:
        teachers: network names; the penultimate features of the first one count.
        space: those features, or the normalised pixels (the paper is silent).
        instances: all, or of an INFER set the compensated ones alone (u != 0); those that share an
            image or a compensator are correlated.
    """

    teachers: tuple[str, ...]
    space: Literal["features", "pixels"] = "features"
    instances: Literal["all", "compensated"] = "all"

    def misfit(
        self, method: Mapping[str, Any], per_class: float, classes: int | None
    ) -> str | None:
        """What is wrong with a set of this method, or None; the planner asks."""
        if per_class < 2:
            return "needs pairs of instances of a class; ask for a larger ipc"
        if self.instances == "compensated" and "natural_instances" not in method:
            return f"instances = 'compensated': '{method['name']}' has none; set it to 'all'"
        return None


@torch.no_grad()
def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Cosine similarity, in [-1, 1], over unordered pairs of instances of a class, not augmented.

    Returns:
        value: mean over the pairs of a class, then over the classes.
        values: class, instances, similarity.
        metadata: space, instances.

    Raises:
        BudgetError: a class has fewer than two instances.
        PlanError: compensated instances are asked of a set that has no compensators.
    """
    samples = inputs.instances(job.device)
    first = _first(needed(inputs.distilled, "distilled"), recipe)
    vectors_of = _describer(inputs, recipe)

    def look(label: int) -> tuple[int, float]:
        members = (samples.labels == label).nonzero().flatten()
        members = members[members >= first]
        if len(members) < 2:
            raise BudgetError(
                f"class '{inputs.classes[label]}' has {len(members)} instances, similarity needs "
                "pairs: ask for a larger ipc"
            )
        parts = members.split(BATCH)
        vectors = (vectors_of(samples.normalise(samples.take(part))) for part in parts)
        return len(members), mean_cosine(vectors, len(members))

    labels = range(len(inputs.classes))
    found = gathered(job, "similarity", labels, look, label="similarity")
    counts, similarities = zip(*found, strict=True)
    rows = list(zip(inputs.classes, counts, similarities, strict=True))
    metadata = {"space": recipe.space, "instances": recipe.instances}
    value = sum(similarities) / len(similarities)
    return Result(value, columns(COLUMNS, rows), metadata=metadata)


def _describer(inputs: AnalysisInputs, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """From normalised images (B, C, H, W) to the vectors that are compared."""
    if recipe.space == "features":
        return partial(penultimate, inputs.teachers[0].model)
    return lambda images: images


def mean_cosine(vectors: Iterable[Tensor], count: int) -> float:
    """Mean cosine over the unordered pairs of vectors. A zero vector has cosine 0 with all others.

    Args:
        vectors: in batches (B, ...) of any float type.
        count: of all vectors, at least 2.
    """
    total = squares = torch.zeros((), dtype=torch.float64)
    for batch in vectors:
        unit = normalize(batch.flatten(1).double())
        total, squares = total + unit.sum(0), squares + unit.square().sum()
    # with unit vectors v: 2 sum_{i<j} v_i v_j = |sum v|^2 - sum |v|^2, so that no pair is formed
    return ((total.square().sum() - squares) / (count * (count - 1))).item()


def _first(distilled: DistilledSet, recipe: Recipe) -> int:
    """Index of the first instance that counts: natural ones come before the compensated."""
    if recipe.instances == "all":
        return 0
    if "compensators" not in distilled:
        raise PlanError(
            f"similarity of compensated instances: method '{distilled.method}' has none; use "
            "instances: all"
        )
    return distilled["natural"].shape[:2].numel() if distilled.layout["natural_instances"] else 0
