"""Knowledge distillation (Hinton et al. 2015), with the constants of its benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import NonNegative, Positive
from distillery.losses.kl import divergence
from distillery.losses.target import Target

NAMES = ("kd",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    The defaults are mdistiller's for CIFAR-100; on ImageNet it uses T = 1, 0.5 and 0.5. GIFT states
    none.

    Attributes:
        temperature: T of the divergence.
        hard: weight of the cross entropy.
        soft: weight of the divergence.
    """

    temperature: Positive = 4.0
    hard: NonNegative = 0.1
    soft: NonNegative = 0.9


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """Sum hard CE(s, y) + soft T^2 KL(softmax(t/T) || softmax(s/T)), means over the batch.

    y = target.mixed.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: T, hard and soft.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    soft = divergence(logits, target.soft("kd"), recipe.temperature)
    return recipe.hard * F.cross_entropy(logits, target.mixed) + recipe.soft * soft
