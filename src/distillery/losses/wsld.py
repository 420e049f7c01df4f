"""Weighted soft labels (Zhou et al. 2021, "Rethinking soft labels for knowledge distillation")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.soft_cross_entropy import soft_cross_entropy
from distillery.losses.target import Target

NAMES = ("wsld",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # its weights need the class of an image
}


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    The defaults are cls_KD's for CIFAR-100; on ImageNet T = 2 and alpha = 2.5. GIFT states none.

    Attributes:
        temperature: T of the soft part.
        alpha: weight of the soft part.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 2.25


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) + alpha T^2 mean_i w_i CE(s_i/T, softmax(t_i/T)), mean over the batch.

    `weights` gives the w_i.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t, and images that are not mixed.
        recipe: T and alpha.

    Raises:
        DistilleryError: the target has no teacher logits, or its images are mixed.
    """
    teacher, hard = target.soft("wsld"), target.unmixed("wsld")
    soft = weights(logits, teacher, hard) * soft_cross_entropy(logits, teacher, recipe.temperature)
    return F.cross_entropy(logits, hard) + recipe.alpha * recipe.temperature**2 * soft.mean()


@torch.no_grad()
def weights(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    """Weights w = 1 - exp(-CE(s, y) / CE(t, y)).

    They are small where the student knows better than the teacher.

    Args:
        student: logits s, (B, classes) float.
        teacher: logits t, (B, classes) float.
        hard: y, (B,) int64.

    Returns:
        (B,) in [0, 1].
    """
    student_error, teacher_error = (
        F.cross_entropy(z, hard, reduction="none") for z in (student, teacher)
    )
    return -torch.expm1(-student_error / (teacher_error + 1e-7))
