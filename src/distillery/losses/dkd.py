"""Decoupled knowledge distillation (Zhao et al. 2022): target apart from non-target classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import Count, NonNegative, Positive
from distillery.losses.kl import divergence
from distillery.losses.target import Target, non_target_logits

NAMES = ("dkd",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # it sets the class of an image apart
}


@dataclass(frozen=True)
class Recipe:
    """The constants of the loss.

    The defaults are mdistiller's for CIFAR-100 (beta 2 or 6 for some pairs); on ImageNet T = 1,
    ramp 1 and beta 0.5 (ResNet-34 to ResNet-18) or 2. GIFT states none.

    Attributes:
        temperature: T.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        ramp: epochs over which both rise linearly to their weights.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    ramp: Count = 20


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) + min(epoch / ramp, 1) (alpha TCKD + beta NCKD), means over the batch.

    Epochs are counted from 1.

    Args:
        logits: s, (B, classes) float.
        target: has the teacher logits t, and images that are not mixed.
        recipe: T, alpha, beta and ramp.

    Raises:
        DistilleryError: the target has no teacher logits, or its images are mixed.
    """
    teacher, hard = target.soft("dkd"), target.unmixed("dkd")
    tckd, nckd = tckd_nckd(logits, teacher, hard, recipe.temperature)
    risen = min((target.epoch + 1) / recipe.ramp, 1)
    return F.cross_entropy(logits, hard) + risen * (recipe.alpha * tckd + recipe.beta * nckd)


def tckd_nckd(
    student: Tensor, teacher: Tensor, hard: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, both times T^2.

    TCKD is the divergence between the shares of (target, all others), NCKD that among the other
    classes, renormalised.
    Deviation: the authors take the target out by lowering its logit by 1000, and the others' share
    as one minus the target's; here the other columns are gathered and summed in logarithms, which
    is exact and stays finite for a certain student.

    Args:
        student: logits (B, classes) float.
        teacher: logits (B, classes) float.
        hard: (B,) int64; the target classes.
        temperature: T.

    Returns:
        Two scalars, means over the batch.
    """
    student_rest, teacher_rest = (non_target_logits(z, hard) for z in (student, teacher))
    student_pair = _target_and_rest(student, student_rest, hard, temperature)
    teacher_pair = _target_and_rest(teacher, teacher_rest, hard, temperature)
    tckd = divergence(student_pair, teacher_pair, 1.0) * temperature**2
    return tckd, divergence(student_rest, teacher_rest, temperature)


def _target_and_rest(logits: Tensor, rest: Tensor, hard: Tensor, temperature: float) -> Tensor:
    """(B, 2): tempered logits of the target and of "any other" class.

    Their softmax is the two shares of the tempered softmax over all classes.
    """
    target = logits.gather(1, hard[:, None]) / temperature
    return torch.cat([target, torch.logsumexp(rest / temperature, dim=1, keepdim=True)], dim=1)
