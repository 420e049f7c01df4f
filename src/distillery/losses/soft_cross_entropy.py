"""Cross entropy against the teacher's probabilities (DATM; soft-ce in the GIFT tables)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import Positive
from distillery.losses.target import Target

NAMES = ("soft-ce",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    Attributes:
        temperature: T, divides the logits of both sides.
    """

    temperature: Positive = 1.0


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """-sum_c softmax(t/T)_c log softmax(s/T)_c, mean over the batch.

    It is KL plus the entropy of the labels, of the same gradient.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: T.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    return soft_cross_entropy(logits, target.soft("soft-ce"), recipe.temperature).mean()


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The loss of any two sets of logits, each (B, classes) float: one value per sample, (B,)."""
    return F.cross_entropy(
        student / temperature, F.softmax(teacher / temperature, dim=1), reduction="none"
    )
