"""What INFER's compensators look like and how large they are: Figures 6 and 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillery.analyses.inputs import Result, fixed_choice, needed
from distillery.components.fields import Count
from distillery.errors import PlanError

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("compensators",)
TRAITS = {"needs": ("distilled",), "of": "compensators"}


@dataclass(frozen=True)
class Recipe:
    """INFER, Figures 6 and 7.

    Attributes:
        subsets: how many are shown with their compensators, the first ones.
        classes: how many are shown with their images of subset 0, drawn at random.
    """

    subsets: Count = 4
    classes: Count = 5


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Largest absolute value and standard deviation of every compensator.

    Both are in pixel units (pixels in [0, 1]).

    Returns:
        value: mean of max_abs.
        values: teacher and subset (positions), network (the teacher's, as the set's recipe names
        it; its position where nobody says), max_abs, std (over all pixels and channels).
        arrays: u (M, K', C, H, W) of the first subsets; natural (c, C, H, W) in [0, 1] and
        compensated (M, c, C, H, W), clamped to [0, 1], of subset 0; classes (c,), their labels,
        ascending. All are float32 but the labels.

    Raises:
        PlanError: the set has no compensators.
    """
    distilled = needed(inputs.distilled, "distilled")
    if "compensators" not in distilled:
        raise PlanError(
            f"analysis 'compensators': method '{distilled.method}' has none; name a row of INFER"
        )
    compensators = distilled["compensators"].float()
    flat = compensators.flatten(2)
    largest, spread = flat.abs().amax(2), flat.std(2, correction=0)
    teacher, subset = torch.cartesian_prod(*map(torch.arange, largest.shape)).unbind(1)
    networks = inputs.distilled_with or tuple(map(str, range(len(compensators))))
    values = {
        "teacher": teacher.tolist(),
        "subset": subset.tolist(),
        "network": [networks[position] for position in teacher],
        "max_abs": largest.flatten().tolist(),
        "std": spread.flatten().tolist(),
    }
    classes = fixed_choice("compensators", recipe.classes, len(inputs.classes)).sort().values
    natural = distilled["natural"][0, classes].float() / 255
    compensated = (natural + compensators[:, :1]).clamp(0, 1)
    arrays = {
        "u": compensators[:, : recipe.subsets],
        "natural": natural,
        "compensated": compensated,
        "classes": classes,
    }
    return Result(largest.mean().item(), values, arrays)
