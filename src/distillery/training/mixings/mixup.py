"""MixUp (Zhang et al. 2018): convex combinations of pairs of images."""

from __future__ import annotations

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from distillery.training.batches import Mixing

NAMES = ("mixup",)


def draw(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    """Draw lambda ~ Beta(alpha, alpha) and a permutation, one of each for the batch."""
    permutation = torch.randperm(len(images), generator=generator)
    # By the inverse distribution function: torch's own Beta takes no generator.
    uniform = torch.rand((), dtype=torch.float64, generator=generator).item()
    return Mixing(
        float(betaincinv(alpha, alpha, uniform)),
        permutation.to(images.device, non_blocking=True),
    )
