"""Weighted soft labels (Zhou et al. 2021, "Rethinking soft labels for knowledge distillation")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.soft_cross_entropy import cross
from distillery.losses.target import Target

NAMES = ("wsld",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # its weights need the class of an image
}


@dataclass(frozen=True)
class Recipe:
    """temperature: T of the soft part. alpha: weight of the soft part.

    The defaults are cls_KD's for CIFAR-100; on ImageNet T = 2 and alpha = 2.5. GIFT states none.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 2.25


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) + alpha T^2 mean_i w_i CE(s_i/T, softmax(t_i/T)), with the weights of `weights`; mean over the batch.

    logits s: (B, classes) float. Raises DistilleryError when the target has no teacher logits t or its images are mixed.
    """
    teacher, hard = target.soft("wsld"), target.unmixed("wsld")
    soft = weights(logits, teacher, hard) * cross(logits, teacher, recipe.temperature)
    return F.cross_entropy(logits, hard) + recipe.alpha * recipe.temperature**2 * soft.mean()


@torch.no_grad()
def weights(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    """w = 1 - exp(-CE(s, y) / CE(t, y)), (B,) in [0, 1]: small where the student already knows better than the teacher."""
    own, theirs = (F.cross_entropy(z, hard, reduction="none") for z in (student, teacher))
    return -torch.expm1(-own / (theirs + 1e-7))
