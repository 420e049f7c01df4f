"""Normalised knowledge distillation.

Yang et al. 2023, "From knowledge distillation to self-knowledge distillation".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.soft_cross_entropy import soft_cross_entropy
from distillery.losses.target import Target, non_target_logits

NAMES = ("nkd",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # it sets the class of an image apart
}


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    The defaults are the authors' for CIFAR-100; on ImageNet T = 1 and gamma = 1.5. GIFT states
    none.

    Attributes:
        temperature: T of the other classes.
        gamma: their weight.
    """

    temperature: Positive = 3.0
    gamma: NonNegative = 3.5


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) - mean p_y(t) log p_y(s) + gamma T^2 CE among the other classes, renormalised.

    p is at temperature 1.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t, and images that are not mixed.
        recipe: T and gamma.

    Raises:
        DistilleryError: the target has no teacher logits, or its images are mixed.
    """
    teacher, hard = target.soft("nkd"), target.unmixed("nkd")
    known = F.softmax(teacher, dim=1).gather(1, hard[:, None])[:, 0]
    target_part = (1 + known) * F.cross_entropy(logits, hard, reduction="none")
    student_rest, teacher_rest = (non_target_logits(z, hard) for z in (logits, teacher))
    rest = soft_cross_entropy(student_rest, teacher_rest, recipe.temperature)
    return (target_part + recipe.gamma * recipe.temperature**2 * rest).mean()
