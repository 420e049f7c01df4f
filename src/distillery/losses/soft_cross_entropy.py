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
    """temperature: T, divides the logits of both sides."""

    temperature: Positive = 1.0


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """-sum_c softmax(t/T)_c log softmax(s/T)_c, mean over the batch: KL plus the entropy of the labels, same gradient.

    logits s: (B, classes) float. Raises DistilleryError when the target has no teacher logits t.
    """
    return cross(logits, target.soft("soft-ce"), recipe.temperature).mean()


def cross(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same of any two sets of logits, each (B, classes) float: one value for each sample, (B,)."""
    return F.cross_entropy(
        student / temperature, F.softmax(teacher / temperature, dim=1), reduction="none"
    )
