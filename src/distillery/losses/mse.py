"""Mean squared error between raw logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.losses.target import Target

NAMES = ("mse",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """(s - t)^2, mean over batch and classes.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: has no fields.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    return F.mse_loss(logits, target.soft("mse"))
