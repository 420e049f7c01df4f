"""Mean squared error of logits plus weighted cross entropy (G-VBSM)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative
from distillery.losses.target import Target

NAMES = ("mse+ce",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """weight: w of the cross entropy; G-VBSM's authors use 0.15 on CIFAR, 0.1 elsewhere, GIFT's 0.1 everywhere."""

    weight: NonNegative = 0.1


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """mean (s - t)^2 over batch and classes + w CE(s, y), y being the classes before mixing, as in G-VBSM's code.

    logits s: (B, classes) float. Raises DistilleryError when the target has no teacher logits t.
    """
    return F.mse_loss(logits, target.soft("mse+ce")) + recipe.weight * F.cross_entropy(
        logits, target.hard
    )
