"""GIFT's labels: a convex combination of L2-normalised teacher logits and smoothed one-hot labels.

Section 4 of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch.nn import functional as F

from distillery.components.fields import Fraction
from distillery.losses.target import Target

NAMES = ("gift",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the refinement.

    Attributes:
        gamma: share of the hard label; 1/11 is what the authors' code comes to, t/|t| + 0.1 h/|h|.
        alpha: smoothing of the hard label.
        length: "unit" leaves r as the formula gives it, at most 1 long: for the cosine loss, which
            sees its direction only. "teacher" multiplies it by the length of the sample's teacher
            logits, so that a temperature, or a loss that also compares with the hard label, keeps
            its meaning.
    """

    gamma: Fraction = 0.1
    alpha: Fraction = 0.1
    length: Literal["unit", "teacher"] = "unit"


def refine(target: Target, recipe: Recipe) -> Target:
    """`target` with logits r = gamma h/|h| + (1 - gamma) t/|t| for each sample.

    t is the sample's logits and h its smoothed label: 1 - alpha for the class and alpha / (C - 1)
    for each other; a mixture of these where the images are mixed, h and t being mixed before they
    are normalised (the paper mixes nothing). r has the length of t in it if `length` is "teacher".
    Deviation: alpha is spread over the other classes alone, as in the authors' code, not over all
    classes as in the reference that the paper cites.

    Args:
        target: has the teacher logits t.
        recipe: gamma, alpha and length.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    teacher, hard = target.soft("gift"), target.mixed
    smoothed = (1 - recipe.alpha) * hard + recipe.alpha / (hard.shape[1] - 1) * (1 - hard)
    hard_part = recipe.gamma * F.normalize(smoothed, dim=1)
    refined = hard_part + (1 - recipe.gamma) * F.normalize(teacher, dim=1)
    if recipe.length == "teacher":
        refined = refined * teacher.norm(dim=1, keepdim=True)
    return replace(target, logits=refined)
