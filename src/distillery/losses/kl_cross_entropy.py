"""Divergence from the teacher plus weighted cross entropy (KL+CE in GIFT's Table 6)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.kl import divergence
from distillery.losses.target import Target

NAMES = ("kl+ce",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    Deviation: GIFT states no constants and has no code for its KL+CE row; its other sums weigh the
    cross entropy 0.1. Its KL goes without T^2, but at T = 20 this cross entropy would then be some
    50 times the divergence in the gradient, and the sum a cross entropy, which the printed
    accuracies rule out; hence `squared` here.

    Attributes:
        temperature: T of the divergence.
        weight: w of the cross entropy.
        squared: multiply the divergence by T^2.
    """

    temperature: Positive = 20.0
    weight: NonNegative = 0.1
    squared: bool = True


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """T^2 KL(softmax(t/T) || softmax(s/T)) + w CE(s, y), means over the batch, y = target.mixed.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: T, w and squared.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    divergent = divergence(logits, target.soft("kl+ce"), recipe.temperature, squared=recipe.squared)
    return divergent + recipe.weight * F.cross_entropy(logits, target.mixed)
