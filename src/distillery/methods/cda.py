"""CDA (TMLR 2024): SRe2L's recovery with crops from large to small.

They start as the whole image and may become smaller along the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillery.components.fields import Count, Fraction, NonNegative, Positive
from distillery.errors import PlanError
from distillery.methods.shared.recipes import Recovery
from distillery.methods.shared.recovery import cosine_decay
from distillery.methods.sre2l import recovered_set
from distillery.training.recipe import NormalisedAugmentations

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("cda",)
TRAITS = {"needs": ("teachers",)}
CROP = "batch-resized-crop"
SMALLEST = 0.08


@dataclass(frozen=True)
class Recipe(Recovery):
    """The defaults are those of the authors' code for Tiny-ImageNet (it has none for CIFAR).

    For ImageNet: lr 0.25, r_bn 0.01, augment with roll:32.

    Attributes:
        augment: must hold batch-resized-crop without a number: the step gives it.
        milestone: gamma, the share of the run in which the bound falls; 0, the default of the
            authors' code, is SRe2L.
    """

    iterations: Count = 4000
    lr: Positive = 0.4
    r_bn: NonNegative = 0.05
    augment: NormalisedAugmentations = ("batch-resized-crop", "batch-flip", "roll:4")
    milestone: Fraction = 1.0

    def mistake(self) -> tuple[str, str] | None:
        """The field that lacks what the method schedules, and why; None where all is well."""
        if CROP in self.augment:
            return None
        return "augment", f"{list(self.augment)}: CDA schedules its crop; add '{CROP}' to it"


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """SRe2L's images, each step's crop drawn with the lower bound of that step.

    Args:
        train: whose classes and normalisation the images have.
        recipe: the settings.
        ipc: images per class.
        teachers: the first recovers.
        job: gives device, random streams and folders.

    Returns:
        The parts of `recovered_set`, which also says what it raises.

    Raises:
        PlanError: recipe.augment holds no batch-resized-crop.
    """
    if CROP not in recipe.augment:
        raise PlanError(
            f"cda: augment = {list(recipe.augment)}: CDA schedules its crop; "
            f"add '{CROP}', without a number"
        )

    def augment(step: int) -> list[str]:
        bound = smallest_crop(step, recipe.iterations, recipe.milestone)
        return [f"{CROP}:{bound!r}" if name == CROP else name for name in recipe.augment]

    return recovered_set("cda", train, recipe, augment, ipc=ipc, teacher=teachers[0], job=job)


def smallest_crop(step: int, steps: int, milestone: float) -> float:
    """Lower bound of the crop's share of the area at a step.

    From 1 to 0.08 as a cosine over milestone * steps, then 0.08.

    Args:
        step: 0 .. steps - 1.
        steps: of the run.
        milestone: share of the run in which the bound falls.
    """
    end = milestone * steps
    return SMALLEST + cosine_decay(1 - SMALLEST, step, end) if step < end else SMALLEST
