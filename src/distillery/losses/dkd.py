"""Decoupled knowledge distillation (Zhao et al. 2022): the label's share apart from the other classes'."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import Count, NonNegative, Positive
from distillery.losses.kl import divergence
from distillery.losses.target import Target, others

NAMES = ("dkd",)
TRAITS = {
    "needs_soft_labels": True,  # needs teacher logits
    "mixed_images": False,  # it sets the class of an image apart
}


@dataclass(frozen=True)
class Recipe:
    """temperature: T. alpha, beta: weights of TCKD and NCKD. ramp: epochs over which both rise linearly to their weights.

    The defaults are mdistiller's for CIFAR-100 (beta 2 or 6 for some pairs); on ImageNet T = 1, ramp 1 and beta 0.5 (ResNet-34
    to ResNet-18) or 2. GIFT states none.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    ramp: Count = 20


def loss(logits: Tensor, target: Target, recipe: Recipe) -> Tensor:
    """CE(s, y) + min(epoch / ramp, 1) (alpha TCKD + beta NCKD), epochs counted from 1; means over the batch.

    logits s: (B, classes) float. Raises DistilleryError when the target has no teacher logits t or its images are mixed.
    """
    teacher, hard = target.soft("dkd"), target.unmixed("dkd")
    tckd, nckd = parts(logits, teacher, hard, recipe.temperature)
    risen = min((target.epoch + 1) / recipe.ramp, 1)
    return F.cross_entropy(logits, hard) + risen * (recipe.alpha * tckd + recipe.beta * nckd)


def parts(
    student: Tensor, teacher: Tensor, hard: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, both times T^2: the divergence of (label, all others), and that among the others, renormalised.

    Deviation: the authors take the label out by lowering its logit by 1000 and the others' share as one minus the label's; here
    the other columns are gathered and summed in logarithms, which is exact and stays finite for a certain student.
    """
    rest = [others(z, hard) for z in (student, teacher)]
    pairs = [
        _pair(z, other, hard, temperature)
        for z, other in zip((student, teacher), rest, strict=True)
    ]
    return divergence(*pairs, 1.0) * temperature**2, divergence(*rest, temperature)


def _pair(logits: Tensor, other: Tensor, hard: Tensor, temperature: float) -> Tensor:
    """(B, 2): tempered logits of the label and of "any other", whose softmax is the tempered softmax's two shares."""
    label = logits.gather(1, hard[:, None]) / temperature
    return torch.cat([label, torch.logsumexp(other / temperature, dim=1, keepdim=True)], dim=1)
