"""Normalised knowledge distillation (Yang et al. 2023, "From knowledge distillation to self-knowledge distillation")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.soft_cross_entropy import cross
from distillery.losses.target import Target, others

NAMES = ("nkd",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # it sets the class of an image apart
}


@dataclass(frozen=True)
class Recipe:
    """temperature: T of the other classes. gamma: their weight.

    The defaults are the authors' for CIFAR-100; on ImageNet T = 1 and gamma = 1.5. GIFT states none.
    """

    temperature: Positive = 3.0
    gamma: NonNegative = 3.5


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) - mean p_y(t) log p_y(s) + gamma T^2 CE among the other classes, renormalised; p at temperature 1.

    logits s: (B, classes) float. Raises DistilleryError when the target has no teacher logits t or its images are mixed.
    """
    teacher, hard = target.soft("nkd"), target.unmixed("nkd")
    known = F.softmax(teacher, dim=1).gather(1, hard[:, None])[:, 0]
    label = (1 + known) * F.cross_entropy(logits, hard, reduction="none")
    rest = cross(others(logits, hard), others(teacher, hard), recipe.temperature)
    return (label + recipe.gamma * recipe.temperature**2 * rest).mean()
