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
    """The constants of the loss.

    Attributes:
        weight: w of the cross entropy; G-VBSM's authors use 0.15 on CIFAR, 0.1 elsewhere, GIFT's
            0.1 everywhere.
    """

    weight: NonNegative = 0.1


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """Mean (s - t)^2 over batch and classes + w CE(s, y).

    y is the classes before mixing, as in G-VBSM's code.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: w.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    squared_error = F.mse_loss(logits, target.soft("mse+ce"))
    return squared_error + recipe.weight * F.cross_entropy(logits, target.hard)
