"""Cross entropy against the teacher's probabilities plus a weighted one against the hard labels.

Soft-CE+CE in GIFT's Table 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.soft_cross_entropy import soft_cross_entropy
from distillery.losses.target import Target

NAMES = ("soft-ce+ce",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    Attributes:
        temperature: T of the soft part, 1 in GIFT's code.
        weight: w of the hard part.
    """

    temperature: Positive = 1.0
    weight: NonNegative = 0.1


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s/T, softmax(t/T)) + w CE(s, y), means over the batch, y = target.mixed.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: T and w.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    soft = soft_cross_entropy(logits, target.soft("soft-ce+ce"), recipe.temperature).mean()
    return soft + recipe.weight * F.cross_entropy(logits, target.mixed)
