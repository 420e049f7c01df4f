"""Cross entropy against learned labels as they are, whatever their sum (RaT-BPTT)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.losses.target import Target

NAMES = ("raw-ce",)
TRAITS = {"needs_soft_labels": True}  # those that a set holds, as logarithms


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """-sum_c y_c log softmax(s)_c, y = exp(t), mean over the batch.

    It is `soft-ce` with each sample weighted by the sum of its label; the same where all sums
    are 1. The inner loop and the students of RaT-BPTT's code see labels so: learned labels start
    one-hot, and nothing brings their sum back to 1.

    Args:
        logits: s, (B, classes) float.
        target: has t, the logarithms of labels that are 0 or more.
        recipe: has no fields.

    Raises:
        DistilleryError: the target has no soft labels.
    """
    return F.cross_entropy(logits, target.soft("raw-ce").exp())
