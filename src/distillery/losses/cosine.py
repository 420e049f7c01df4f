"""Cosine distance of raw logits (GIFT, Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.losses.target import Target

NAMES = ("cosine",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """1 - cos(s, t), mean over the batch, in [0, 2].

    With the refinement `gift` this is the loss of GIFT.

    A positive factor on s or t changes nothing, a constant added to either does: the student's
    logits say which class, not how surely.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: has no fields.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    return 1 - F.cosine_similarity(logits, target.soft("cosine"), dim=1).mean()
