"""Kullback-Leibler divergence of tempered softmaxes (Hinton et al. 2015; INFER, SRe2L, RDED)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import Positive
from distillery.losses.target import Target

NAMES = ("kl",)
TRAITS = {"needs_soft_labels": True}  # needs teacher logits


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    Attributes:
        temperature: T, divides the logits of both sides; INFER's authors use 30 on CIFAR and 20 on
            larger images.
        squared: multiply by T^2, which keeps the gradient's size independent of T. The authors of
            INFER and SRe2L do not with AdamW, and do with SGD (Tiny-ImageNet), which hardly learns
            otherwise.
    """

    temperature: Positive = 30.0
    squared: bool = False


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """KL(softmax(t/T) || softmax(s/T)), summed over classes, mean over the batch.

    Times T^2 if `squared`.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t.
        recipe: T and squared.

    Raises:
        DistilleryError: the target has no teacher logits.
    """
    return divergence(logits, target.soft("kl"), recipe.temperature, squared=recipe.squared)


def divergence(
    student: Tensor, teacher: Tensor, temperature: float, *, squared: bool = True
) -> Tensor:
    """KL(softmax(teacher/T) || softmax(student/T)) of any two sets of logits, mean over the batch.

    Args:
        student: (B, classes) float.
        teacher: (B, classes) float.
        temperature: T.
        squared: multiply by T^2.
    """
    student_log, teacher_log = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    kl = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
    return kl * temperature**2 if squared else kl
